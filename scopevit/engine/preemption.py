"""Trainings that are told to stop: they save after the iteration that is running, and end."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import distributed

from . import work_dir
from .logs import tell_iteration
from .placed_sampler import PlacedBatchSampler
from .saving import INTERRUPTED, CheckpointHook, GoOnHook, NotSaved

SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1') if hasattr(signal, name))
"""What asks a training to stop; Slurm is told by ``--signal=USR1@60`` to send SIGUSR1 a minute before the end."""
A_MOMENT = 3
"""Seconds in which further signals are taken for the first."""
PATIENCE = 45
"""Seconds in which a training whose launcher is gone has to have ended."""
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


class Stopped(SystemExit):
    """A training has ended because of a signal; the exit status is 128 and the signal's number."""


class StopHook(Hook):
    """Save and end after the iteration in which a process is sent one of ``SIGNALS``.

    A second one ends it at once, if it comes later: schedulers and launchers often send several within a moment.
    While it saves, only a second SIGINT (Ctrl-C) does. What is ignored already, as SIGHUP under nohup, stays so.
    """

    priority = 'LOWEST'  # after checkpoints that are due anyway

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0
        self.saving: CheckpointHook | None = None
        self.ends = False
        self.group: Any = None
        self.parent = os.getppid()
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers, and rerun a validation that was interrupted or skipped."""
        go_on, saving = GoOnHook.of(runner), _saving(runner)
        self.saving = saving
        self.group = go_on.group
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        if go_on.validates and runner.val_loop is not None:
            go_on.validates = False
            go_on.restore(runner)
            tell_iteration(runner)
            runner.val_loop.run()
            if saving is not None and saving.saved_at is None:  # else the next resume would validate again
                name = os.path.basename(runner.message_hub.get_info('last_ckpt'))
                with suppress(NotSaved):  # it is the same but for that
                    saving.save_as(runner, name, dict(epoch=runner.epoch, iter=runner.iter, validating=False))

    def stop_listening(self) -> None:
        """Leave the signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: object) -> None:
        if os.getppid() != self.parent and hasattr(signal, 'alarm'):
            self.parent = os.getppid()
            signal.alarm(PATIENCE)  # ends the process, should others be gone for which it waits
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()
        elif time.monotonic() > self.since + A_MOMENT and (number == signal.SIGINT or not self._saves()):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _saves(self) -> bool:
        """Whether a checkpoint is being saved, because of a signal or as one that is due."""
        return self.ends or (self.saving is not None and self.saving.is_saving)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: object, **options: object) -> None:
        """Stop here if any process has been told to, unless gradients are being accumulated."""
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        # In the middle of an epoch only where a loop can go on there.
        can_go_on = isinstance(runner.train_loop, IterBasedTrainLoop) or (
            isinstance(runner.train_dataloader.batch_sampler, PlacedBatchSampler)
            and batch_idx + 1 < len(runner.train_dataloader)
        )
        if (runner.iter + 1) % accumulated == 0 and can_go_on and self._is_told(runner):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop between epochs."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop) and self._is_told(runner):
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: object, **options: object) -> None:
        """Stop in a validation, at a batch that all processes have."""
        loader = runner.val_dataloader
        common = len(loader.dataset) // get_world_size() // (loader.batch_size or 1)
        if batch_idx < common and self._is_told(runner):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook._swap_ema_parameters()  # the model has the averaged weights meanwhile
            self._stop(runner, runner.epoch, runner.iter)

    def _is_told(self, runner: Runner) -> bool:
        """Whether any process has been sent a signal; of another one's it learns here."""
        if self.group is None:
            return self.signal is not None
        told = torch.tensor([self.signal or 0])
        try:
            distributed.all_reduce(told, distributed.ReduceOp.MAX, self.group)
        except RuntimeError:
            if self.signal is None:
                raise
            raise self.unsaved(runner) from None
        if told and self.signal is None:
            self.signal, self.since = int(told), time.monotonic()
        return bool(told)  # a signal that came meanwhile is the others' concern from the next time on

    def unsaved(self, runner: Runner) -> Stopped:
        """What ends a training that was told to stop when another of its processes had ended already."""
        number = self.signal or 0
        runner.logger.warning(
            f'{signal.Signals(number).name}: another process ended before this training could save; --resume goes on '
            'from the newest whole checkpoint'
        )
        return Stopped(128 + number)

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        self.ends = True
        saving, number = _saving(runner), self.signal or 0
        says = 'the training ends; without a CheckpointHook nothing is saved'
        if saving is not None:
            if saving.saved_at != (epoch, iteration):
                saving.save_as(runner, f'{INTERRUPTED}iter_{iteration}.pth', dict(epoch=epoch, iter=iteration))
            says = f'saved {saving.last_ckpt}; --resume goes on from there'
        runner.logger.warning(f'{signal.Signals(number).name}: {says}')
        raise Stopped(128 + number)


def _saving(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def end_with_launcher() -> None:
    """Let this process be sent SIGTERM when the process that started it ends; on Linux alone."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start_worker(initialise: Callable[[int], None] | None, worker: int) -> None:
    """Begin a data loader's process: signals to all of a training, and its work dir, are left to the training itself.

    Args:
        initialise: What the data loader's own ``worker_init_fn`` is.
        worker: Number of the process.
    """
    work_dir.let_go()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'alarm'):  # the training sends SIGTERM, too, to one that does not end by itself
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))
    if initialise is not None:
        initialise(worker)
