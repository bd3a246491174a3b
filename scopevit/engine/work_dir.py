"""One run, one folder."""

import contextlib
import glob
import os
import re
import socket
from collections.abc import Iterator
from typing import IO

from mmengine.config import Config

from ..utils.config import type_name
from ..utils.errors import UserError
from ..utils.files import UNFINISHED
from .console import is_first_process

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.training'
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth', 'interrupted_iter_{}.pth')
"""Names of checkpoints, unless a config has others."""
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
    saved = saved_checkpoints(cfg)
    goes_on_here = cfg.get('resume') and cfg.get('load_from') and any(_same(path, cfg.load_from) for path in saved)
    if saved and not goes_on_here:
        let_go()
        raise UserError(
            f'{cfg.work_dir} has checkpoints of another run ({_shown(saved[0], cfg.work_dir)}), which this one would '
            'overwrite: go on with --resume, choose another --work-dir, or move them away'
        )


def saved_checkpoints(cfg: Config) -> list[str]:
    """The checkpoints that a run with a config's hooks has saved by epoch, iteration or signal, in whatever folder.

    Those at an address (``s3://...``) are not looked for.
    """
    found: set[str] = set()
    for folder, template in _places(cfg):
        parts = re.split(r'\{[^{}]*\}', template)  # where the number stands
        files = glob.glob(os.path.join(glob.escape(folder), '*'.join(map(glob.escape, parts))))
        name = re.compile(re.escape(os.path.join(folder, '')) + r'\d+'.join(map(re.escape, parts)))
        found.update(path for path in files if name.fullmatch(path) and os.path.isfile(path))
    return sorted(found)


def _places(cfg: Config) -> Iterator[tuple[str, str]]:
    """Folders and templates of the names by which checkpoints are saved, as MMEngine puts them together."""
    hooks = [(cfg.get('default_hooks') or {}).get('checkpoint'), *(cfg.get('custom_hooks') or [])]
    hooks = [hook for hook in hooks if isinstance(hook, dict) and type_name(hook).endswith('CheckpointHook')]
    work_dir = os.path.abspath(cfg.work_dir)
    for hook in [{}, *hooks]:  # the usual places, too: a run may have begun with other hooks
        folder = str(hook.get('out_dir') or work_dir)
        if '://' in folder:
            continue
        folder = cfg.work_dir if folder == work_dir else os.path.join(folder, os.path.basename(work_dir))
        for template in {*TEMPLATES, hook.get('filename_tmpl') or TEMPLATES[0]}:
            yield folder, template


def last_checkpoint(work_dir: str) -> str:
    """The path that MMEngine's file ``last_checkpoint`` holds; empty if there is none, or it cannot be read."""
    try:
        with open(os.path.join(work_dir, 'last_checkpoint')) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _shown(path: str, work_dir: str) -> str:
    """A file's name, with its folder if that is another one."""
    folder, name = os.path.split(path)
    return name if _same(folder, work_dir) else path


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
