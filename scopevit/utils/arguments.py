"""Types of command-line options."""

import argparse

import torch

from .errors import UserError


def positive(text: str) -> int:
    """Type of an option that is a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError('must be at least 1')
    return value


def check_device(name: str) -> None:
    """Make sure that a device can be computed on.

    Raises:
        UserError: If not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {name} cannot be used here: {str(error).splitlines()[0]}') from None
