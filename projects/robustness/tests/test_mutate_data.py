"""Mutations of data are repeatable, and a few of each kind end without a traceback."""

import random
import shutil

import pytest

from projects.robustness.mutate_data import CHANGES, FILES, FOLDERS, TASKS, cases, mutate, run, write_data, write_table


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp('base')
    write_data(folder / 'sound')
    return folder


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob('*'))
        if not path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize('task', TASKS)
def test_one_thing_is_changed_and_a_seed_says_which(task, base, tmp_path):
    for seed in range(4):
        found = []
        for name in 'ab':
            shutil.copytree(base / 'sound', tmp_path / f'{name}{seed}')
            found.append(
                (mutate(task, tmp_path / f'{name}{seed}', random.Random(seed)), content(tmp_path / f'{name}{seed}'))
            )
        assert found[0] == found[1]


def test_cases_are_of_all_tasks():
    assert cases(3, 2) == [*FILES, next(iter(FILES)), *FOLDERS]
    assert len(CHANGES) > 20


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_a_few_cases_end_without_a_traceback(task, base):
    number = list(TASKS).index(task)
    for case in range(2):
        row = run(4 * case + number, task, 1, base, 60)
        for step in ('check', 'start'):
            assert row[step] in ('sound', 'told', 'later'), row


def test_the_table_has_what_was_not_told(tmp_path):
    row = dict(
        number=0, task='joints', change='x|y', check='told', check_says='', start_says='KeyError: 1', date='2026-01-01'
    )
    write_table([dict(row, start='traceback'), dict(row, start='sound')], tmp_path / 'table.md')
    text = (tmp_path / 'table.md').read_text()
    assert '| traceback | 0, 0 | 0, 1 | 0, 0 | 0, 0 |' in text
    assert '| joints | x/y | start | traceback | KeyError: 1 |' in text
    assert text.count('x/y') == 1
