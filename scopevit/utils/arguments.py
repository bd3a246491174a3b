"""Types of command-line options."""

import argparse


def positive(text: str) -> int:
    """Type of an option that is a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError('must be at least 1')
    return value
