"""Whether this process is one of our tools."""

import sys
from pathlib import Path

from .shipped import shipped


def is_own_tool() -> bool:
    """Whether this process was started as a tool of ours, which needs what is slow to import behind its arguments only.

    True of ``python tools/train.py CONFIG`` and ``scopevit train``, by ``python -m scopevit`` too, and of nothing
    else: neither of programs that they start, nor of processes that they spawn, which take no arguments.
    """
    process = sys.modules.get('multiprocessing.process')
    if process is not None and (process.parent_process() or getattr(process.current_process(), '_inheriting', False)):
        return False
    program = (sys.argv or [''])[0]
    is_module = program == '-m' and sys.orig_argv[-len(sys.argv)] == 'scopevit'  # while Python looks for it
    if is_module or Path(program).name in ('scopevit', 'scopevit.exe'):
        return True
    return Path(program).is_file() and Path(program).resolve().is_relative_to(shipped('tools').resolve())
