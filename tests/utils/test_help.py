"""Only a help of the package's own tools is told without torch; whatever else asks for help finds the backbone."""

import os
import subprocess
import sys

import pytest

from helpers import ROOT
from scopevit.utils.help import is_help

TOOL, COMMAND = str(ROOT / 'tools/train.py'), '/somewhere/bin/scopevit'


def started(monkeypatch, words):
    """A process that was started with these words behind ``python``; ``-m`` stands there while its module is found."""
    monkeypatch.setattr(sys, 'orig_argv', [sys.executable, *words])
    monkeypatch.setattr(sys, 'argv', ['-m', *words[2:]] if words[:1] == ['-m'] else words)
    return is_help()


@pytest.mark.parametrize(
    'words',
    [
        [TOOL, '--help'],
        [TOOL, 'config.py', '--amp', '-h'],
        [os.path.relpath(TOOL), '--help', '--', 'x'],
        [str(ROOT / 'tools/analysis/get_flops.py'), '--help'],
        [COMMAND],
        [COMMAND, '--help'],
        [f'{COMMAND}.exe', 'train', 'config.py', '--help'],
        ['-m', 'scopevit', 'doctor', '--help'],
        [COMMAND, 'toolbox', '--help'],
        [str(ROOT / 'tools/toolbox.py'), '--help'],
    ],
)
def test_a_help_of_ours_is_known(words, monkeypatch):
    assert started(monkeypatch, words)


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['-c', '--help'],
        ['train.py', '--help'],
        ['/somewhere/tools/train.py', '--help'],
        ['/somewhere/scopevit.py', '--help'],
        ['-m', 'own.training', '--help'],
        ['-m', 'scopevit.timm', '--help'],
        [TOOL, 'config.py'],
        [TOOL, '--', '--help'],
        [COMMAND, 'list', 'help'],
        [COMMAND, 'toolbox', 'mmdet', 'train', '--help'],
        ['-m', 'scopevit', 'launch', '2', 'own.py', '--help'],
        [str(ROOT / 'tools/toolbox.py'), 'mmdet', 'train', '--help'],
    ],
)
def test_all_else_is_not(words, monkeypatch):
    assert not started(monkeypatch, words)


def test_a_program_of_ones_own_with_a_help_finds_the_backbone(tmp_path):
    program = tmp_path / 'train.py'
    program.write_text(
        'import scopevit\nfrom mmengine.registry import MODELS\nprint(MODELS.get("ScopeViT") is scopevit.ScopeViT)'
    )
    command = [sys.executable, program, '--help']
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout == 'True\n'


def test_the_backbone_is_there_for_whoever_asks_in_a_help():
    program = f'import sys; sys.argv = [{TOOL!r}, "--help"]; from scopevit import ScopeViT; print(ScopeViT.__name__)'
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == 'ScopeViT\n', result.stderr
