"""Files that lie beside the package in a checkout, and inside it when it is installed."""

import os
import shlex
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The folder ``configs`` or ``tools`` that belongs to this package."""
    installed = PACKAGE / '.mim' / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def this_command() -> str:
    """The command line that runs now, as it can be run again."""
    program = ['python', os.path.relpath(sys.argv[0])] if os.path.isfile(sys.argv[0]) else sys.argv[0].split()
    return shlex.join([*program, *sys.argv[1:]])


def tool_command(file: str, name: str) -> str:
    """How a tool is called here: a file of a checkout's ``tools``, or by its name where the package is installed."""
    return f'python tools/{file}' if shipped('tools') == PACKAGE.parent / 'tools' else f'scopevit {name}'
