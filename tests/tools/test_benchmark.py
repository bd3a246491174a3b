"""Comparing models from the command line; what is measured is tested in tests/analysis."""

import json
import sys

import cv2
import pytest

from helpers import ROOT, fails_cleanly, tool_here
from scopevit.analysis.measuring import COPIED_BYTES, MATMUL_SIDES

CONFIG = ROOT / 'configs' / 'classification' / 'scopevit-xtiny_8xb128-300e_in1k-256px.py'
NETS = """
from torch import nn

class Scaled(nn.Conv2d):
    def switch_to_deploy(self):
        self.bias = None

def net(channels=4):
    return Scaled(3, channels, 3)
"""


def benchmark(*words, rounds=3):
    return tool_here(
        'analysis/benchmark.py', *words, '--batch-size', 1, '--warmup', 1, '--rounds', rounds, '--calls', 1
    )


@pytest.fixture(autouse=True)
def small_yardsticks(monkeypatch):
    monkeypatch.setitem(MATMUL_SIDES, 'cpu', 64)
    monkeypatch.setitem(COPIED_BYTES, 'cpu', 4096)


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
    figure = tmp_path / 'curve.png'
    result = benchmark(nets, '--size', 16, '--size', 32, 24, '--train', '--plot', figure)
    assert result.returncode == 0, result.stderr
    assert '16x16' in result.stdout
    assert '32x24' in result.stdout
    assert cv2.imread(str(figure)) is not None


def test_deploy_for_all_that_have_it(nets):
    result = benchmark(f'{CONFIG}@64', f'{nets}@32', '--deploy')
    assert result.returncode == 0, result.stderr


def test_options_of_models(nets):
    models = (f'plain={CONFIG}@64', f'cp={CONFIG}@64?model.backbone.with_cp=True', f'{nets}@32?channels=2')
    result = benchmark(*models, '--train', rounds=1)
    assert result.returncode == 0, result.stderr
    assert '| net?channels=2 |' in result.stdout
    plain, checkpoints = (float(line.split('|')[10].split()[0]) for line in result.stdout.splitlines()[2:4])
    assert checkpoints < 0.8 * plain  # MiB, gradients among them


def test_a_model_that_fails_leaves_the_others_results(nets, tmp_path):
    files = {kind: tmp_path / f'out.{kind}' for kind in ('json', 'md', 'png')}
    result = benchmark(
        *(nets, '--size', 2, '--size', 16, '--size', 24),
        *('--json', files['json'], '--table', files['md'], '--plot', files['png']),
    )
    fails_cleanly(result, 'net does not run at 2x2')
    assert result.returncode == 1
    rows = json.loads(files['json'].read_text())['results']
    assert [len(row['seconds']) for row in rows] == [0, 3, 3]
    assert rows[0]['error'].startswith('RuntimeError')
    assert 'fails' in files['md'].read_text()
    assert cv2.imread(str(files['png'])) is not None
    assert sorted(tmp_path.glob('out.*')) == sorted(files.values())


def test_results_are_written_after_each_round(nets, tmp_path, monkeypatch):
    """Whoever ends a long measurement keeps what there is."""
    out = tmp_path / 'out.json'
    rounds = []

    def interrupt(*_):
        rounds.append(len(json.loads(out.read_text())['results'][0]['seconds']))
        raise KeyboardInterrupt

    monkeypatch.setattr('scopevit.analysis.measuring._Stepper.profile', interrupt)
    assert benchmark(f'{nets}@32', '--json', out).returncode == 130
    assert rounds == [3]
    assert json.loads(out.read_text())['results'][0]['images_per_second'] > 0


def test_bad_input(nets, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    monkeypatch.setitem(sys.modules, 'timm.data', None)
    monkeypatch.delitem(sys.modules, 'scopevit.timm', raising=False)
    (tmp_path / 'file').write_text('')
    for words, *says in (
        (['configs/missing.py'], 'does not exist'),
        ([nets], 'write'),
        ([f'{nets}@huge'], 'neither a number of pixels'),
        ([nets, '--size', '12x'], 'argument --size: takes a height and a width of at least 1', 'but got 12x'),
        ([nets, '--size', 1, 2, 3], 'or one number for a square, but got 1 2 3'),
        ([f'{nets}@2'], 'net does not run at 2x2'),
        (['timm:resnet18'], 'timm:resnet18 cannot be built: ', 'pip install "timm>='),
        ([f'{nets}@32', '--device', 'nowhere'], '--device nowhere cannot be used here'),
        ([f'{nets}@32', '--device', 'meta'], '--device meta cannot be used here: only cpu, cuda'),
        ([f'{nets}@32', '--dynamic'], '--dynamic says how to --compile'),
        ([f'{nets}@32', f'{nets}@32'], 'several models are called net; name them LABEL=MODEL'),
        ([f'{nets}@32?width=3'], 'unexpected keyword argument'),
        ([f'{CONFIG}?model.backbone.arch=huge'], 'xtiny, tiny, small'),
        ([f'{nets}@32', '--json', tmp_path], '--json', 'is a folder'),
        ([f'{nets}@32', '--plot', tmp_path / 'a.xyz'], '.png, .svg or .pdf'),
        ([f'{nets}@32', '--plot', tmp_path / 'a'], '.png, .svg or .pdf'),
        ([f'{nets}@32', '--autocast'], '--autocast computes in --dtype'),
        ([f'{nets}@32', '--plot', tmp_path / 'file' / 'a.png'], '--plot'),
        ([f'{nets}@32:deploy', '--train'], 'the deploy form is not for training'),
        (['mmpretrain::resnet/resnet18_8xb32_in1k.py@32:deploy'], 'resnet18_8xb32_in1k:deploy: ', 'switch_to_deploy'),
    ):
        fails_cleanly(benchmark(*words), *says)
