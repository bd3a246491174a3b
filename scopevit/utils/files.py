"""Writing files as a whole, and making sure beforehand that they can be written."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import UserError, raise_own

UNFINISHED = '.unfinished_'
"""How names begin under which files are written."""


def require_writable_folder(folder: str, option: str = '--work-dir') -> None:
    """Make a folder, and make sure that files can be written there, before hours of work.

    Raises:
        UserError: If they cannot; it names the option to choose another folder with.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))  # a full disk still takes names
    except OSError as error:
        raise UserError(f'cannot write to {folder} ({error.strerror}); choose another folder with {option}') from None


def require_writable_file(path: str, option: str) -> None:
    """Make sure that a file can be written, before the work whose result it is to hold.

    Raises:
        UserError: If it cannot.
    """
    if os.path.isdir(path):
        raise UserError(f'{option} {path} is a folder; name a file')
    require_writable_folder(os.path.dirname(os.path.abspath(path)), option)


def require_new_file(path: str, option: str = 'the file to write') -> None:
    """Make sure that a file can be written, and that there is none of this name.

    Raises:
        UserError: If not.
    """
    require_writable_file(path, option)
    if os.path.exists(path):
        raise UserError(f'{path} exists already and is left as it is; choose another name or remove it')


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Write a file all or nothing: under another name beside it, which becomes ``path`` once the block has ended.

    Yields:
        The name to write to, an empty file with the suffix of ``path``.

    Raises:
        UserError: If it cannot be written. ``path`` is then as it was, and nothing is left beside it.
    """
    target = os.path.realpath(path)  # a link stays one
    folder, suffix = os.path.dirname(target), os.path.splitext(target)[1]
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        name = os.path.join(folder, f'{UNFINISHED}{secrets.token_hex(8)}{suffix}')
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))  # less what the umask takes away
        temporary = name
        yield temporary
        _flush(temporary)  # else a crash of the machine could leave the name without the content
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
        temporary = None
        if os.name == 'posix':
            _flush(folder)  # before anything that the file replaces is removed
    except OSError as error:
        raise_own(error)
        raise UserError(f'cannot write {path} ({error.strerror or error})') from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.remove(temporary)


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: str, content: str | bytes) -> None:
    """Write a file all or nothing.

    Raises:
        UserError: If it cannot be written.
    """
    with whole_file(path) as temporary, open(temporary, 'wb') as file:
        file.write(content.encode() if isinstance(content, str) else content)


def save_figure(figure: Any, path: str) -> None:
    """Write a figure of matplotlib's all or nothing.

    Raises:
        UserError: If it cannot be written.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def write_json(path: str, data: object, indent: int | None = 1) -> None:
    """Write a JSON file all or nothing.

    Raises:
        UserError: If it cannot be written.
    """
    write_whole(path, json.dumps(data, indent=indent))
