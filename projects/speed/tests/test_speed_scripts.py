"""The measuring scripts say what they take, from any folder, and refuse what they do not know before they measure."""

import json
import re
import subprocess
import sys

import pytest

from helpers import ROOT, tool, write_image

SCRIPTS = ['gpu_report.sh', 'measure.sh']


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_has_help(script, tmp_path):
    path = ROOT / 'projects' / 'speed' / script
    result = subprocess.run(['bash', path, '--help'], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0
    assert f'bash projects/speed/{script}' in result.stdout
    assert result.stderr == ''


@pytest.mark.parametrize(
    ('script', 'words', 'says'),
    [
        ('gpu_report.sh', [], 'name the folder to write to'),
        ('gpu_report.sh', ['out', 'everything'], 'unknown step everything'),
        ('measure.sh', ['ratio', 'everything'], 'there is no measurement called everything'),
    ],
)
def test_wrong_arguments_show_the_usage_and_what_is_wrong(script, words, says, tmp_path):
    result = tool(ROOT / 'projects' / 'speed' / script, *words, check=False, cwd=tmp_path)
    assert result.returncode == 2
    assert f'bash projects/speed/{script}' in result.stderr
    assert result.stderr.splitlines()[-1] == f'error: {says}'
    assert not list(tmp_path.iterdir())


def test_the_configs_that_are_measured_exist():
    text = (ROOT / 'projects' / 'speed' / 'measure.sh').read_text().replace('$table', 'projects/imagenet_table/configs')
    names = re.findall(r'[\w/]*configs/[\w/.-]+\.py', text)
    assert len(names) == 5
    assert all((ROOT / name).is_file() for name in names)
    text = (ROOT / 'projects' / 'speed' / 'gpu_report.sh').read_text()
    names = re.findall(r'[\w-]+_scenes[\w-]*(?=[ ;]|$)', text, flags=re.MULTILINE)
    assert len(names) == 4
    assert all((ROOT / 'projects' / 'scenes' / 'configs' / f'{name}.py').is_file() for name in names)


def pipelines(*words):
    command = [sys.executable, ROOT / 'projects' / 'speed' / 'pipelines.py', *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


@pytest.mark.slow
def test_pipelines_are_measured_beside_those_of_mmpretrain(tmp_path):
    for i in range(2):
        write_image(tmp_path / 'photos' / 'some' / f'{i}.JPEG', seed=i, size=(300, 400))
    out, page = tmp_path / 'times.json', tmp_path / 'times.md'
    result = pipelines(tmp_path / 'photos', '--rounds', 2, '--json', out, '--table', page)
    assert result.returncode == 0, result.stderr
    for split, times in json.loads(out.read_text())['results'].items():
        theirs, ours = times['mmpretrain'], times['scopevit']
        assert len(theirs['images']) == len(ours['images']) == 2
        assert theirs['steps'].keys() == ours['steps'].keys() >= {'LoadImageFromFile', 'PackInputs'}
        assert min(*ours['steps'].values(), *ours['images']) > 0
        assert f'| {split}, ms an image' in result.stdout
    assert result.stdout.count('| images/s and core') == 2
    assert page.read_text() == result.stdout.removesuffix('\n')
    refused = pipelines(out.parent / 'nothing')
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith('nothing has no .jpg or .jpeg files')
