"""The command ``scopevit``."""

import sys

import pytest

from helpers import ROOT
from scopevit.__main__ import COMMANDS, main


def run(monkeypatch, *words):
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])  # which a command takes the place of
    monkeypatch.setattr('sys.argv', ['/somewhere/__main__.py', *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize('command', COMMANDS)
def test_the_usage_names_the_command(command, monkeypatch, capsys):
    assert run(monkeypatch, command, '--help') == 0
    assert capsys.readouterr().out.startswith(f'usage: scopevit {command} ')


def test_every_tool_is_a_command_but_those_of_a_checkout():
    of_a_checkout = {'analysis/readme_tables.py', 'data/fashion_mnist.py'}  # its pages and its data
    tools = {path.relative_to(ROOT / 'tools').as_posix() for path in (ROOT / 'tools').rglob('*.py')}
    assert tools - of_a_checkout == {file for file, _ in COMMANDS.values() if file.endswith('.py')}


def test_wrong_arguments_name_the_command(monkeypatch, capsys):
    assert run(monkeypatch, 'list', '--sort', 'colour') == 2
    assert 'scopevit list: error: argument --sort' in capsys.readouterr().err
