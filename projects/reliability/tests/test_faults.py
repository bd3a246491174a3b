"""The faults that are tried, and what the table says of them."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers import ROOT, load_tool

faults = load_tool(ROOT / 'projects' / 'reliability' / 'faults.py')


def test_trials_are_of_all_kinds_and_repeatable():
    trials = list(faults.trials(30, 20, 10, 5))
    assert trials == list(faults.trials(30, 20, 10, 5))
    assert len({(t['kind'], t['processes'], t['seed']) for t in trials}) == len(trials) == 30 + 20 + 10 + 5 + 80
    assert {t['keep'] for t in trials} == {t['processes'] for t in trials} == {1, 2}
    saving = {(t['stage'], t['keep'], t['processes']) for t in trials if t['kind'] == 'kill saving'}
    assert {(stage, keep) for stage, keep, _ in saving} == {(stage, keep) for stage in faults.STAGES for keep in (1, 2)}
    assert {stage for stage, _, processes in saving if processes == 2} == set(faults.STAGES)


def test_a_signal_is_not_to_end_a_training_at_once():
    kinds = ('kill saving', 'launcher', 'SIGUSR1', 'full disk')
    assert [faults.expected_status(kind) for kind in kinds] == [-9, -9, 138, 1]


# Starts two others, one of which leaves its session and its parent.
FAMILY = """
import subprocess, sys, time
if len(sys.argv) > 2:
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', sys.argv[1]], start_new_session=True)
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
time.sleep(60)
"""


def test_all_processes_of_a_training_are_found_and_killed(tmp_path, monkeypatch):
    begun = subprocess.Popen

    def family(command, **options):
        return begun([sys.executable, '-c', FAMILY, *command[command.index('--work-dir') + 1 :], 'x'], **options)

    monkeypatch.setattr(subprocess, 'Popen', family)
    training = faults.Training('config.py', tmp_path / 'run', 1, [])
    training.wait_until(lambda: len(training.running()) == 3)
    training.process.kill()
    training.process.wait()
    assert len(training.running()) == 2
    training.kill()
    assert training.left_after(0) == (0, pytest.approx(time.monotonic(), abs=5))
    assert training.wait() == -signal.SIGKILL


def test_what_a_training_said_beyond_its_progress():
    log = """
11/28 16:02:04 - mmengine - INFO -
  task             mmpretrain
11/28 16:02:04 - mmengine - INFO - Epoch(train)  [1][2/2]  loss: 2.3132
11/28 16:02:04 - mmengine - INFO - The training goes on from epoch 9, iteration 18
11/28 16:02:13 - mmengine - WARNING - SIGTERM: saved epoch_9.pth
error: x
"""
    assert faults.told(log) == ['SIGTERM: saved epoch_9.pth', 'error: x']
    assert faults.told(log, 'goes on from')[0] == 'The training goes on from epoch 9, iteration 18'


def test_equal_is_to_the_bit():
    state = dict(a=[torch.ones(2), 1], b=dict(c='x'))
    assert faults.equal(state, dict(a=[torch.ones(2), 1], b=dict(c='x')))
    assert not faults.equal(state, dict(a=[torch.ones(2) + 1e-7, 1], b=dict(c='x')))
    assert not faults.equal(state, dict(a=[torch.ones(2)], b=dict(c='x')))


@pytest.fixture
def row():
    return dict(
        kind='SIGTERM',
        processes=2,
        status=143,
        resumed=True,
        equal=True,
        lost=0,
        left_running=0,
        seconds=3.2,
        traceback=False,
        saved=1,
        other=0,
        damaged=0,
        message='SIGTERM: saved epoch_7.pth',
        found=None,
    )


@pytest.mark.parametrize(
    'change',
    [
        dict(status=1),
        dict(resumed=False),
        dict(equal=False),
        dict(left_running=1),
        dict(traceback=True),
        dict(saved=2),
        dict(saved=0),
        dict(other=1),
        dict(damaged=1),
    ],
)
def test_only_what_is_as_promised_has_survived(change, row):
    assert faults.survived(row)
    assert faults.survived(dict(row, status=0, saved=0))  # the training had ended
    assert not faults.survived(dict(row, **change))
    disk = dict(row, kind='full disk', status=1, saved=0, other=7, files=1)
    assert faults.survived(disk)
    assert not faults.survived(dict(disk, files=0))


def test_tables_count_by_kind(row):
    rows = [row, dict(row, status=1, equal=False, lost=3, traceback=True, saved=2), dict(row, status=0, saved=0)]
    lines = faults.table(rows).splitlines()
    assert lines[2] == '| SIGTERM | 2 | 3 | 1 | 1 | 3 | 2 | 1 to 2 | 0 | 0 | 0 | 3.2 | 1 |'
    assert lines[0].count('|') == lines[1].count('|') == lines[2].count('|')
    lines = faults.flat_table(rows).splitlines()
    assert lines[2] == '| SIGTERM; 2 processes | 3 | 2 | 3 iterations | `SIGTERM: saved epoch_N.pth` | faults.py |'
    assert len({line.count('|') for line in lines}) == 1
    saving = dict(row, kind='kill saving', stage=faults.STAGES[0], found='half-written file')
    assert faults.found_table([row, saving, saving]).splitlines()[2:] == [
        '| its file is begun | half-written file | 2 |'
    ]


def test_tests_that_the_table_names_are_there():
    for *_, file, name in faults.SHOWN_BY_TESTS:
        assert f'def {name}(' in (ROOT / 'tests' / file).read_text()
