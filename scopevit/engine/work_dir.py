"""One run, one folder."""

import contextlib
import glob
import os
import socket
from typing import IO

from mmengine.config import Config

from ..utils.errors import UserError
from ..utils.files import UNFINISHED
from .console import is_first_process

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.training'
_held: dict[str, IO] = {}  # a lock ends with the file that it is on


def claim_work_dir(cfg: Config) -> None:
    """Take a config's ``work_dir`` for this training, until its processes have ended.

    Raises:
        UserError: If another training runs there, or has left checkpoints that this one would overwrite.
    """
    if cfg.get('launcher', 'none') != 'none' and not is_first_process():
        return
    _lock(cfg.work_dir)
    for path in glob.glob(os.path.join(glob.escape(cfg.work_dir), f'{UNFINISHED}*')):
        os.remove(path)  # of a run that was killed
    paths = sorted(glob.glob(os.path.join(glob.escape(cfg.work_dir), '*.pth')))
    saved = [path for path in paths if os.path.basename(path).startswith(('epoch_', 'iter_', 'interrupted_'))]
    goes_on_here = cfg.get('resume') and cfg.get('load_from') and any(_same(path, cfg.load_from) for path in saved)
    if saved and not goes_on_here:
        let_go()
        raise UserError(
            f'{cfg.work_dir} has checkpoints of another run ({os.path.basename(saved[0])}), which this one would '
            'overwrite: go on with --resume, choose another --work-dir, or move them away'
        )


def let_go() -> None:
    """Give the folder free; a process that was forked, and has inherited it, would hold it longer than the training."""
    while _held:
        _held.popitem()[1].close()


def _same(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _lock(folder: str) -> None:
    if fcntl is None:
        return
    folder = os.path.realpath(folder)
    if folder in _held:  # by an earlier training of this process
        fcntl.flock(_held[folder], fcntl.LOCK_UN)  # loader processes may have it, too
        _held.pop(folder).close()
    file = open(os.path.join(folder, LOCK), 'a+')  # noqa: SIM115 - it is to stay open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        raise UserError(
            f'another training runs in {folder} ({holder or "it does not say which"}): wait for its end, stop it, or '
            'choose another --work-dir'
        ) from None
    except OSError:  # a file system without locks
        return
    _held[folder] = file
    with contextlib.suppress(OSError):  # of a full disk
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
