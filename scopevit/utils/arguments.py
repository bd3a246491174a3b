"""Types of command-line options."""

import argparse

import torch

from .errors import UserError

SCORE_THR = 0.3
"""The lowest score of what is drawn and written unless asked otherwise, as in mmdet's own figures."""


def positive(text: str) -> int:
    """Type of an option that is a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError('must be at least 1')
    return value


def fraction(text: str) -> float:
    """Type of an option that is a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError('must be from 0 to 1')
    return value


def add_score_threshold(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--score-thr``, with ``what`` as its help."""
    parser.add_argument('--score-thr', type=fraction, default=SCORE_THR, help=f'{what} (default: %(default)s)')


def check_device(name: str) -> None:
    """Make sure that a device can be computed on.

    Raises:
        UserError: If not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {name} cannot be used here: {str(error).splitlines()[0]}') from None
