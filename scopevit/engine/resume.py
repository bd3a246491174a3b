"""Going on with a run: finding its newest whole checkpoint, and all that has to be as it was."""

import copy
import glob
import logging
import os
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_world_size
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from ..utils.checkpoint import CheckpointError, read_checkpoint, to_plain
from ..utils.errors import UserError
from ..utils.wrappers import unwrap

LARGEST = 2**31
"""Epochs and iterations beyond this are taken for damage."""
OF_A_START = ('load_from', 'resume', 'work_dir', 'launcher', 'log_level', 'env_cfg', 'experiment_name')
"""Settings that belong to a start, not to the run."""
PROGRESS = ('last_step', '_global_step', '_last_value', 'verbose')
"""What of a scheduler's state is no setting."""
FORMS = ('fused', 'foreach', 'capturable', 'differentiable')
"""How an optimizer computes, without a difference in what."""
MOST_NAMED = 8


@dataclass
class Found:
    """What :func:`find_checkpoint` found in a work dir.

    Attributes:
        path: The newest checkpoint that a training can go on from; None: there is none.
        passed_over: Newer ones, with the reason for each.
    """

    path: str | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)


def find_checkpoint(work_dir: str) -> Found:
    """The newest whole checkpoint of a run.

    It is the one that ``last_checkpoint`` names, wherever the folder has been moved since, or, if that file is
    missing or empty or the checkpoint is not whole, the newest other one.
    """
    found = Found()
    for path in _candidates(work_dir):
        try:
            read_resumable(path)
        except CheckpointError as error:
            found.passed_over.append((path, str(error)))
        else:
            found.path = path
            break
    return found


def settle_resume(cfg: Config) -> None:
    """Name in ``load_from`` the checkpoint that a run with ``resume`` goes on from; without any it begins.

    Raises:
        UserError: If there are checkpoints, but none that a training can go on from.
    """
    if not cfg.get('resume') or cfg.get('load_from'):
        return
    found = find_checkpoint(cfg.work_dir)
    for _, reason in found.passed_over:
        print_log(f'Passed over: {reason}', logger='current', level=logging.WARNING)
    if found.path is None and found.passed_over:
        raise UserError(
            f'--resume: no training can go on from any checkpoint in {cfg.work_dir} (see above); start a new one in '
            'another --work-dir'
        )
    cfg.load_from = found.path
    cfg.resume = found.path is not None


def _candidates(work_dir: str) -> Iterator[str]:
    saved = glob.glob(os.path.join(glob.escape(work_dir), '*.pth'))
    saved.sort(key=os.path.getmtime, reverse=True)
    try:
        with open(os.path.join(work_dir, 'last_checkpoint')) as file:
            named = file.read().strip()
    except (OSError, UnicodeDecodeError):
        named = ''
    for path in (named, os.path.join(work_dir, os.path.basename(named))):
        if named and os.path.isfile(path):
            yield path
            saved = [other for other in saved if not os.path.samefile(other, path)]
            break
    yield from saved


def read_resumable(path: str) -> dict:
    """Read a checkpoint to go on from, without the config of its run, which MMEngine would execute.

    Raises:
        CheckpointError: If it cannot be read, or has not all that a training goes on from.
    """
    checkpoint = read_checkpoint(path)
    meta = checkpoint.get('meta')
    missing = [key for key in ('state_dict', 'optimizer', 'message_hub') if not isinstance(checkpoint.get(key), dict)]
    if missing or not isinstance(meta, dict):
        raise CheckpointError(
            f'checkpoint {path} has weights alone (no {missing[0] if missing else "meta"}), so no training can go on '
            'from it; --pretrained starts a new one from its backbone, --cfg-options load_from= from all of it'
        )
    for key in ('epoch', 'iter'):
        if type(meta.get(key)) is not int or not 0 <= meta[key] < LARGEST:
            raise CheckpointError(f'checkpoint {path} is damaged: its {key} is {meta.get(key)!r}')
    meta.pop('config', None)
    return checkpoint


def describe_run(runner: Runner) -> dict:
    """What a checkpoint says of its run, to tell later what has changed: plain data."""
    return dict(
        processes=get_world_size(),
        epoch_length=len(runner.train_dataloader),
        settings=to_plain({key: value for key, value in runner.cfg.to_dict().items() if key not in OF_A_START}),
    )


def adapt_position(runner: Runner, meta: dict) -> None:
    """Say what has changed since a checkpoint, and count in epochs of the present length."""
    before = meta.get('run')
    if not isinstance(before, dict):
        return
    now = describe_run(runner)
    length = now['epoch_length']
    if before['epoch_length'] != length and getattr(runner, 'counts_epochs', False):
        runner.train_loop._iter = runner.epoch * length
        runner.logger.warning(
            f'An epoch has {length} iterations, at the checkpoint it had {before["epoch_length"]}: the training goes '
            f'on from the beginning of epoch {runner.epoch + 1}, as iteration {runner.iter}'
        )
    if before['processes'] != now['processes']:
        runner.logger.warning(
            f'{now["processes"]} processes go on with what {before["processes"]} began: data and random numbers are '
            'dealt out in another way, so the results are not those of an uninterrupted run'
        )
    changed = sorted(changed_settings(before['settings'], now['settings']))
    if changed:
        more = f' and {len(changed) - MOST_NAMED} more' if len(changed) > MOST_NAMED else ''
        runner.logger.warning(
            f'Changed since the checkpoint, and in effect from here on: {", ".join(changed[:MOST_NAMED])}{more}'
        )


def changed_settings(before: object, now: object, key: str = '') -> Iterator[str]:
    """Keys under which two configs of plain data differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from changed_settings(before.get(name), now.get(name), f'{key}.{name}' if key else name)
    elif before != now:
        yield key


class ScheduleOfConfig:
    """What config and command line say of learning rates and other settings of the optimizer, before a resume.

    MMEngine takes all of that from the checkpoint. If it differs from the config, the schedule of the config is run
    again, without training, up to where the training goes on.

    Args:
        runner: A runner with optimizer and schedulers, which have done no step.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.is_known = isinstance(runner.optim_wrapper, OptimWrapper) and isinstance(runner.param_schedulers, list)
        if self.is_known:
            self.groups = [_settings(group) for group in runner.optim_wrapper.param_groups]
            self.schedulers = [dict(scheduler.state_dict()) for scheduler in runner.param_schedulers]

    def take_effect(self) -> None:
        """Bring the config's settings back if those of the checkpoint, which has been loaded, are others."""
        if not self.is_known or not self._has_changed():
            return
        runner = self.runner
        for group, settings in zip(runner.optim_wrapper.param_groups, self.groups):
            group.update(settings)
        for scheduler, state in zip(runner.param_schedulers, self.schedulers):
            scheduler.load_state_dict(state)
        length = len(runner.train_dataloader)
        counts_epochs = runner.train_loop.max_epochs > 1 or runner.epoch > 0
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that no optimizer does its steps in between
            for done in range(1, runner.iter + 1):
                _step(runner.param_schedulers, by_epoch=False)
                if counts_epochs and done % length == 0:
                    _step(runner.param_schedulers, by_epoch=True)
        rate = runner.optim_wrapper.get_lr()
        first = next(iter(rate.values()))[0]
        runner.logger.warning(f'The schedule is that of the config, not of the checkpoint; learning rate {first:.3g}')

    def _has_changed(self) -> bool:
        scheduled = {scheduler.param_name for scheduler in self.runner.param_schedulers}
        for group, settings in zip(self.runner.optim_wrapper.param_groups, self.groups):
            if any(group.get(key) != value for key, value in settings.items() if key not in scheduled):
                return True
        for scheduler, state in zip(self.runner.param_schedulers, self.schedulers):
            now = scheduler.state_dict()
            if any(now.get(key) != value for key, value in state.items() if key not in PROGRESS):
                return True
        return False


def _settings(group: dict) -> dict:
    return {key: copy.copy(value) for key, value in group.items() if key not in ('params', *FORMS)}


def _step(schedulers: list, by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch == by_epoch:
            scheduler.step()


def random_states(models: list[nn.Module]) -> list[dict]:
    """Of each process what a run needs, besides what MMEngine saves, to go on as if it had never stopped.

    That are the random states and, of several processes, the buffers, since the statistics of batch norms differ.
    All processes have to call it.

    Args:
        models: The model that is trained, and the averages of it.

    Returns:
        One dict for each process, of tensors and plain data.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = dict(
        python=_as_lists(random.getstate()),
        numpy=[kind, np.asarray(keys).tolist(), *rest],
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        buffers=None,
    )
    if get_world_size() > 1:
        state['buffers'] = [{name: buffer.cpu() for name, buffer in unwrap(model).named_buffers()} for model in models]
    return all_gather_object(state)


def restore_states(state: dict, models: list[nn.Module]) -> None:
    """Set the random states and, if they were saved, the buffers of this process as they were.

    Args:
        state: One of those that :func:`random_states` returned.
        models: As for that function.
    """
    version, keys, gauss = state['python']
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(state['numpy']))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
    with torch.no_grad():
        for model, saved in zip(models, state['buffers'] or ()):
            for name, buffer in unwrap(model).named_buffers():
                if name in saved:
                    buffer.copy_(saved[name])


def _as_lists(value: object) -> object:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
