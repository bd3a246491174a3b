"""Findings: what the rules of this folder yield, and what becomes of them before a training."""

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mmengine.logging import print_log

from ..utils.errors import UserError, one_line

SECONDS = 60  # that checks after a failure may take
TOLERATED = 1e-4  # faults of COCO's own files are about as many


@dataclass(frozen=True)
class Finding:
    """One thing that a rule has to say.

    Attributes:
        severity: 'error' if a training would fail or learn nothing, 'warning' if it would run, with
            something wrong; 'note' for what is good to know, 'info' for what was looked at.
        key: What it is about: a split (``'train'``, ``'val[1]'`` for the second of joined data
            sets), a key of the config, or a file.
        text: What is wrong, and what to do.
    """

    severity: Literal['error', 'warning', 'note', 'info']
    key: str
    text: str

    def __str__(self) -> str:
        return self.text if self.text.startswith(self.key) else f'{self.key}: {self.text}'

    @property
    def is_problem(self) -> bool:
        return self.severity in ('error', 'warning')


def faulty(
    key: str, items: Sequence[str], total: int, what: str, remedy: str, is_fatal: bool = False
) -> Iterator[Finding]:
    """A finding about faulty items, if there are any.

    Args:
        items: Names of the faulty ones.
        total: How many there are of the kind.
        is_fatal: Whether one of them makes a training fail. Those that the toolboxes pass over are
            a note, if they are as few as in COCO's own files.
    """
    if not items:
        return
    text = f'{len(items)} of {total} {what} ({first(items)})'
    if not is_fatal and len(items) <= TOLERATED * total:
        yield Finding('note', key, f'{text}; they are passed over in training')
    else:
        yield Finding('error' if is_fatal else 'warning', key, f'{text}: {remedy}')


def log_unchecked(what: str, error: Exception) -> None:
    """Log at debug level why something was not checked, which is no fault of the data."""
    print_log(f'Not checked: {what}: {one_line(error)}', logger='current', level=logging.DEBUG)


def first(items: Sequence, most: int = 3) -> str:
    """The first of some items, for a message."""
    return ', '.join(map(str, items[:most])) + (', ...' if len(items) > most else '')


def listed(findings: Sequence[Finding]) -> str:
    """One finding in a line; several in one each, numbered."""
    if len(findings) == 1:
        return str(findings[0])
    return '\n' + '\n'.join(f'  {i}. {finding}' for i, finding in enumerate(findings, 1))


def found_in_time(findings: Iterable[Finding], seconds: float = SECONDS) -> list[Finding]:
    """Distinct problems found within a time limit after a failure, which is reported regardless.

    A rule that itself fails is the last; its traceback is printed.
    """
    found: list[Finding] = []
    try:
        with _time_limit(seconds):
            for finding in findings:
                if finding.is_problem and finding not in found:
                    found.append(finding)
    except _OutOfTime:
        print(f'The data were not checked to the end: that takes more than {seconds:g} s', file=sys.stderr)
    except Exception as error:
        traceback.print_exception(error)
        print('The data were not checked to the end: a rule failed, see above', file=sys.stderr)
    return found


class _OutOfTime(BaseException):
    """No rule takes it for an error of the data."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, where signals can do that: in the main thread, not on Windows."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'setitimer'):
        yield
        return

    def stop(*_: object) -> None:
        raise _OutOfTime

    handler = signal.signal(signal.SIGALRM, stop)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


def refuse_errors(findings: Iterable[Finding], advice: str = '') -> None:
    """Log warnings and notes.

    Raises:
        UserError: If there are errors; it lists them, with the advice.
    """
    errors = []
    for finding in findings:
        if finding.severity == 'error':
            errors.append(finding)
        elif finding.severity != 'info':
            print_log(str(finding), logger='current', level=logging.WARNING)
    if errors:
        raise UserError(listed(errors) + (f'; {advice}' if advice else ''))
