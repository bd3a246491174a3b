"""Writing files as a whole, and making sure beforehand that they can be written."""

import json
import os
import tempfile

from .errors import UserError


def check_writable(folder: str, option: str = '--work-dir') -> None:
    """Make a folder, and make sure that files can be written there, before hours of work."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'cannot write to {folder} ({error.strerror}); choose another folder with {option}') from None


def check_file(path: str, option: str) -> None:
    """Make sure that a file can be written, before the measurement.

    Raises:
        UserError: If not.
    """
    if os.path.isdir(path):
        raise UserError(f'{option} {path} is a folder; name a file')
    check_writable(os.path.dirname(os.path.abspath(path)), option)


def write_json(path: str, data: dict) -> None:
    """Write a file at once, so that nobody meets half of it."""
    unfinished = f'{path}.unfinished'
    with open(unfinished, 'w') as file:
        json.dump(data, file, indent=1)
    os.replace(unfinished, path)
