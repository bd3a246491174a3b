"""What becomes of findings: errors are refused all at once, a few tolerable faults are notes."""

import time

import pytest

from scopevit.checks import findings
from scopevit.checks.findings import Finding, faulty, found_in_time, refuse_errors
from scopevit.utils.errors import UserError


def test_errors_are_refused_all_at_once_and_the_rest_is_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(findings, 'print_log', lambda text, **options: logged.append(text))
    found = [
        Finding('error', 'train', 'first'),
        Finding('warning', 'val', 'second'),
        Finding('error', 'model.neck', 'model.neck.in_channels is third'),
        Finding('info', 'val', 'fourth'),
    ]
    with pytest.raises(UserError) as refused:
        refuse_errors(found, 'look there')
    assert str(refused.value) == '\n  1. train: first\n  2. model.neck.in_channels is third; look there'
    assert logged == ['val: second']
    refuse_errors(found[1:2])
    with pytest.raises(UserError, match='^train: first$'):
        refuse_errors(found[:1])


def test_checks_after_a_failure_end_in_time_and_never_hide_it(capsys):
    first, second = Finding('error', 'train', 'first'), Finding('warning', 'train', 'second')

    def slow():
        yield first
        time.sleep(60)
        yield second

    assert found_in_time(slow(), seconds=0.5) == [first]
    assert 'not checked to the end: that takes more than 0.5 s' in capsys.readouterr().err

    def failing():
        yield from [first, first, Finding('note', 'train', 'third'), second]
        raise KeyError('x')

    assert found_in_time(failing()) == [first, second]
    said = capsys.readouterr().err
    assert 'not checked to the end: a rule failed' in said
    assert "in failing\n    raise KeyError('x')" in said  # a bug keeps its traceback


def test_few_faults_that_are_passed_over_are_a_note():
    (note,) = faulty('train', ['a'], 10_000, 'boxes are flat', 'correct them')
    assert (note.severity, note.text) == (
        'note', '1 of 10000 boxes are flat (a); they are passed over in training'
    )  # fmt: skip
    (warning,) = faulty('train', list('abcd'), 10_000, 'boxes are flat', 'correct them')
    assert (warning.severity, warning.text) == (
        'warning', '4 of 10000 boxes are flat (a, b, c, ...): correct them'
    )  # fmt: skip
    (error,) = faulty('train', ['a'], 10_000, 'masks are missing', 'draw them', is_fatal=True)
    assert error.severity == 'error'
    assert list(faulty('train', [], 10, 'masks are missing', 'draw them')) == []
