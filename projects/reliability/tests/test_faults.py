"""The faults that are tried, and what the table says of them."""

import torch

from helpers import ROOT, load_tool

faults = load_tool(ROOT / 'projects' / 'reliability' / 'faults.py')


def test_trials_are_of_all_kinds_and_repeatable():
    trials = list(faults.trials(30, 20, 10))
    assert trials == list(faults.trials(30, 20, 10))
    assert len({(t['kind'], t['processes'], t['seed']) for t in trials}) == len(trials) == 30 + 20 + 10 + 80
    assert {t['keep'] for t in trials} == {t['processes'] for t in trials} == {1, 2}


def test_a_signal_is_not_to_end_a_training_at_once():
    assert [faults.expected_status(kind) for kind in ('kill saving', 'launcher', 'SIGUSR1')] == [-9, -9, 138]


def test_equal_is_to_the_bit():
    state = dict(a=[torch.ones(2), 1], b=dict(c='x'))
    assert faults.equal(state, dict(a=[torch.ones(2), 1], b=dict(c='x')))
    assert not faults.equal(state, dict(a=[torch.ones(2) + 1e-7, 1], b=dict(c='x')))
    assert not faults.equal(state, dict(a=[torch.ones(2)], b=dict(c='x')))


def test_table_counts_by_kind():
    row = dict(kind='SIGTERM', processes=2, status=143, resumed=True, equal=True, lost=0, left_running=0)
    row['traceback'] = False
    rows = [row, dict(row, status=1, equal=False, lost=3, traceback=True), dict(row, status=0)]
    lines = faults.table(rows).splitlines()
    assert lines[2] == '| SIGTERM | 2 | 3 | 1 | 1 | 3 | 2 | 3 | 0 | 1 |'
    assert lines[0].count('|') == lines[1].count('|') == lines[2].count('|')
