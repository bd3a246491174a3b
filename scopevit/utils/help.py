"""Whether this process only tells the help of one of our tools."""

import sys
from pathlib import Path

from .shipped import shipped

# What follows their first arguments is another program's, its --help too.
_HANDING_ON = ('launch', 'toolbox')


def is_help() -> bool:
    """Whether this process was started as a tool of ours to tell its help, which needs nothing that is slow to import.

    True of ``python tools/train.py CONFIG --help`` and ``scopevit train --help``, by ``python -m scopevit`` too, of
    ``scopevit`` without a command, which lists them, and of nothing else.
    """
    program, *words = sys.argv or ['']
    is_module = program == '-m' and sys.orig_argv[-len(sys.argv)] == 'scopevit'  # while Python looks for it
    if not (is_module or Path(program).name in ('scopevit', 'scopevit.exe')):
        if not Path(program).resolve().is_relative_to(shipped('tools').resolve()):
            return False
        words = [Path(program).stem, *words]
    own = words[:2] if words[:1] and words[0] in _HANDING_ON else words
    own = own[: own.index('--')] if '--' in own else own
    return not own or '-h' in own or '--help' in own
