"""The measuring scripts say what they take, from any folder, and refuse what they do not know before they measure."""

import re
import subprocess

import pytest

from helpers import ROOT, tool

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
