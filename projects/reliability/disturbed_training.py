"""A training in processes of its own, and the means to disturb it: signals, kills, and a disk without room."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from scopevit.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
"""Seconds after which a training has to have ended."""
UNTIL_GONE = 60
"""Seconds in which all processes of a training have to be gone after the fault that ends it."""
_listing = threading.Lock()  # trials in threads share what psutil keeps of each process


class SmallDisk:
    """A disk of a few megabytes at a folder, which is there for what is started ``inside`` it alone.

    Args:
        folder: Where it is; it is made.
        size: Bytes.

    Raises:
        UserError: If this machine lets nobody mount one: that takes Linux and the rights of root.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && echo mounted && exec cat'
        try:
            self.keeper = subprocess.Popen(
                ['unshare', '--mount', 'sh', '-c', mount, folder],
                stdin=subprocess.PIPE,  # it ends when this closes, and the disk with it
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f'no disk can be mounted ({error})') from None
        answer = self.keeper.stdout.readline().strip()
        if answer != 'mounted':
            self.close()
            raise UserError(f'no disk can be mounted ({answer})')
        self.inside = ['nsenter', f'--target={self.keeper.pid}', '--mount', '--']
        self.folder = Path(f'/proc/{self.keeper.pid}/root{folder}')
        """The folder, as it is seen from outside."""

    def fill(self, left: int) -> None:
        """Take all its room but some bytes, or less if there is less."""
        with suppress(OSError), open(self.folder / 'something_else', 'wb') as file:
            while (room := shutil.disk_usage(self.folder).free - left) > 0:
                file.write(bytes(min(room, 2**20)))
                file.flush()

    def make_room(self) -> None:
        """Remove what :meth:`fill` wrote."""
        (self.folder / 'something_else').unlink(missing_ok=True)

    def close(self) -> None:
        """Let it go, with all that it holds."""
        self.keeper.stdin.close()
        self.keeper.stdout.close()
        self.keeper.wait(PATIENCE)


class Training:
    """A training in a folder, begun as users begin one.

    Args:
        config: Its config.
        folder: Its work dir, beside which its output is appended to a file with the suffix ``.log``.
        processes: How many train.
        words: Further words of the command line, options of the config last.
        inside: What the command line begins with.
        cwd: The current folder of the training.
        script: What is started in the place of tools/train.py.
        environment: Further variables for it.
    """

    def __init__(
        self,
        config: Path,
        folder: Path,
        processes: int,
        words: Iterable[object],
        inside: Iterable[str] = (),
        cwd: Path | None = None,
        script: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder.with_suffix('.log')
        start = [sys.executable, script or ROOT / 'tools' / 'train.py', config]
        if processes > 1 and script:
            start = [sys.executable, ROOT / 'tools' / 'launch.py', processes, script, config]
        elif processes > 1:
            start = ['bash', ROOT / 'tools' / 'dist_train.sh', config, processes]
        own = {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
        self.output = open(self.log, 'a')  # noqa: SIM115 - the process writes to it
        self.process = subprocess.Popen(
            list(map(str, [*inside, *start, '--work-dir', folder, *words])),
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **own, **(environment or {})},
        )
        self._known: set[psutil.Process] = set()

    def wait(self) -> int:
        """Exit status; 124 if it does not end."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return 124
        finally:
            self.output.close()

    def running(self) -> list[psutil.Process]:
        """All its processes, whatever session they are of and whoever has become their parent.

        They are those whose command line has the work dir, those that were seen before, and what these have started.
        """
        with _listing:
            now = {process.pid: process for process in psutil.process_iter(['ppid', 'cmdline', 'status'])}
            words = {pid: process.info['cmdline'] or [] for pid, process in now.items()}
            parents = {pid: process.info['ppid'] for pid, process in now.items()}
            ended = {pid for pid, process in now.items() if process.info['status'] == psutil.STATUS_ZOMBIE}
        mine = {pid for pid in now if str(self.folder) in words[pid] or now[pid] in self._known}
        before: set[int] = set()
        while mine != before:
            before, mine = mine, mine | {pid for pid, parent in parents.items() if parent in mine}
        self._known |= {now[pid] for pid in mine}
        return [now[pid] for pid in sorted(mine - ended)]

    def kill(self, processes: Iterable[psutil.Process] | None = None) -> None:
        """SIGKILL to all its processes at once: they are stopped first, so that none sees another one end.

        Args:
            processes: What :meth:`running` returned before, where listing them now would take too long.
        """
        processes = self.running() if processes is None else processes
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        while processes := self.running():  # such as were started meanwhile
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)

    def left_after(self, moment: float) -> tuple[int, float]:
        """Wait until all its processes are gone; those that are not after :data:`UNTIL_GONE` are killed.

        Args:
            moment: From which it is counted, as :func:`time.monotonic` has it.

        Returns:
            How many had to be killed, and seconds.
        """
        while (left := self.running()) and time.monotonic() < moment + UNTIL_GONE:
            time.sleep(0.2)
        seconds = time.monotonic() - moment
        if left:
            self.kill()
        return len(left), seconds

    def wait_until(self, is_met: Callable[[], object], pause: float = 0.002) -> None:
        """Return as soon as something is so, or the training has ended."""
        while not is_met() and self.process.poll() is None:
            time.sleep(pause)

    def iterations(self) -> int:
        """How many were logged."""
        return self.log.read_text(errors='replace').count('Epoch(train)')
