"""Only the package's own tools take their arguments without torch; whatever else imports it finds the backbone."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from helpers import ROOT
from scopevit.utils.own_tool import is_own_tool

TOOL, COMMAND = str(ROOT / 'tools/train.py'), '/somewhere/bin/scopevit'


def started(monkeypatch, words):
    """A process that was started with these words behind ``python``; ``-m`` stands there while its module is found."""
    monkeypatch.setattr(sys, 'orig_argv', [sys.executable, *words])
    monkeypatch.setattr(sys, 'argv', ['-m', *words[2:]] if words[:1] == ['-m'] else words)
    return is_own_tool()


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
        [TOOL, 'config.py'],
        ['-m', 'scopevit', 'launch', '2', 'own.py', '--help'],
        [str(ROOT / 'tools/toolbox.py'), 'mmdet', 'train', '--help'],
    ],
)
def test_a_tool_of_ours_is_known(words, monkeypatch):
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
        ['-m', 'scopevit.stack.doctor'],
    ],
)
def test_all_else_is_not(words, monkeypatch):
    assert not started(monkeypatch, words)
    monkeypatch.chdir(ROOT / 'tools')  # as in a shell or a notebook there
    assert not started(monkeypatch, words) or words == ['train.py', '--help']


def spawned(results):
    import scopevit

    results.put('ScopeViT' in vars(scopevit))


def test_processes_that_a_tool_spawns_have_the_backbone(monkeypatch):
    """They have its words, but take no arguments."""
    monkeypatch.setattr(sys, 'argv', [TOOL, 'config.py'])
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    process = context.Process(target=spawned, args=(results,))
    process.start()
    assert results.get(timeout=120)
    process.join()


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
