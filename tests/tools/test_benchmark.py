"""Comparing models from the command line; what is measured is tested in tests/analysis."""

import json
import sys

import cv2
import pytest

from helpers import ROOT, fails_cleanly, tool_here

CONFIG = ROOT / 'configs' / 'classification' / 'scopevit-xtiny_8xb128-300e_in1k-256px.py'
NETS = """
from torch import nn

class Scaled(nn.Conv2d):
    def switch_to_deploy(self):
        self.bias = None

def net():
    return Scaled(3, 4, 3)
"""


def benchmark(*words):
    return tool_here('analysis/benchmark.py', *words, '--batch', 1, '--warmup', 1, '--rounds', 3)


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / 'nets.py'
    path.write_text(NETS)
    return f'{path}:net'


def test_models_of_several_kinds(nets, tmp_path):
    files = {kind: tmp_path / f'out.{kind}' for kind in ('json', 'md', 'png')}
    result = benchmark(
        *(f'ours={CONFIG}@64', f'{nets}@32x48', f'short={nets}@32:deploy'),
        *('--json', files['json'], '--table', files['md'], '--plot', files['png']),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ''
    assert files['md'].read_text() in result.stdout
    data = json.loads(files['json'].read_text())
    assert [r['label'] for r in data['results']] == ['ours', 'net', 'short']
    assert [r['size'] for r in data['results']] == [[64, 64], [32, 48], [32, 32]]
    assert [r['parameters'] for r in data['results']] == [5287490, 112, 108]
    assert 'analysis/benchmark.py' in data['command']
    assert cv2.imread(str(files['png'])) is not None


def test_several_sizes_in_training(nets, tmp_path):
    picture = tmp_path / 'curve.png'
    result = benchmark(nets, '--size', '16', '32x24', '--train', '--plot', picture)
    assert result.returncode == 0, result.stderr
    assert '16x16' in result.stdout
    assert '32x24' in result.stdout
    assert cv2.imread(str(picture)) is not None


def test_deploy_for_all_that_have_it(nets):
    result = benchmark(f'{CONFIG}@64', f'{nets}@32', '--deploy')
    assert result.returncode == 0, result.stderr


def test_bad_input(nets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    (tmp_path / 'file').write_text('')
    for words, *says in (
        (['configs/missing.py'], 'does not exist'),
        ([nets], 'write'),
        ([f'{nets}@huge'], 'neither a number of pixels'),
        ([nets, '--size', '12x'], 'neither a number of pixels'),
        ([f'{nets}@2'], 'net does not run at 2x2'),
        (['timm:resnet18'], 'not installed'),
        ([f'{nets}@32', '--device', 'nowhere'], '--device nowhere cannot be used here'),
        ([f'{nets}@32', '--autocast'], '--autocast computes in --dtype'),
        ([f'{nets}@32', '--plot', tmp_path / 'file' / 'a.png'], '--plot'),
        ([f'{nets}@32:deploy', '--train'], 'the deploy form is not for training'),
        (['mmpretrain::resnet/resnet18_8xb32_in1k.py@32:deploy'], 'resnet18_8xb32_in1k:deploy: ', 'switch_to_deploy'),
    ):
        fails_cleanly(benchmark(*words), *says)
