"""What a measurement depends on is written down with it."""

import subprocess

import torch

from helpers import ROOT
from scopevit.analysis import machine
from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.models.ops.attention import KERNEL


def test_machine_and_state_of_the_code():
    found = describe_machine('cpu')
    assert found['threads'] == torch.get_num_threads()
    assert 0.1 < found['memory_gib'] < 1e5
    assert found['load'] >= 0
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert head.startswith((found['commit'] or '').removesuffix('-dirty'))
    words = machine_in_words(found)
    assert f'{found["memory_gib"]} GiB of memory, load average {found["load"]} before;' in words
    kernel = f'torch {torch.__version__}, {"with" if KERNEL else "without"} the attention kernel of scopevit'
    assert words.endswith(f'{kernel}, commit {found["commit"]}.' if found['commit'] else f'{kernel}.')
    assert 'before and 1.5 after;' in machine_in_words(dict(found, load_after=1.5))


def test_descriptions_of_earlier_versions_are_read():
    found = describe_machine('cpu')
    for key in ('memory_gib', 'commit', 'attention_kernel'):
        del found[key]
    assert 'load average' in machine_in_words(found)


def test_code_outside_a_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, '__file__', str(tmp_path / 'machine.py'))
    assert describe_machine('cpu')['commit'] is None
    monkeypatch.setenv('PATH', str(tmp_path))  # without git
    assert describe_machine('cpu')['commit'] is None


def test_commit_tells_whether_code_has_changed_since(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *words], cwd=tmp_path, check=True)

    code, table = tmp_path / 'package' / 'machine.py', tmp_path / 'table.md'
    code.parent.mkdir()
    code.write_text('')
    table.write_text('')
    monkeypatch.setattr(machine, '__file__', str(code))
    git('init', '--quiet')
    git('add', '.')
    git('commit', '--quiet', '--message', 'all')
    table.write_text('a measurement')
    assert '-dirty' not in describe_machine('cpu')['commit']
    (tmp_path / 'setup.py').write_text('')
    git('add', 'setup.py')
    assert describe_machine('cpu')['commit'].endswith('-dirty')
