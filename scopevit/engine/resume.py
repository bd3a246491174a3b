"""Going on with a run: its newest whole checkpoint, and settings that have changed since."""

import copy
import glob
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from ..utils.checkpoint import (
    CheckpointError,
    read_checkpoint,
    require_backbone_match,
    require_fit,
    select_weights,
    to_plain,
)
from ..utils.config import changed_settings
from ..utils.errors import UserError
from .accumulation import adapt_to_accumulation, other_accumulation
from .console import log_first
from .gpu_settings import require_loss_scale
from .states import are_states
from .work_dir import last_checkpoint, saved_checkpoints

LARGEST = 2**31
"""Epochs and iterations beyond this are taken for damage."""
OF_A_START = ('load_from', 'resume', 'work_dir', 'launcher', 'log_level', 'env_cfg', 'experiment_name', 'randomness')
"""Settings that belong to a start, not to the run; its seed is that of the checkpoint."""
OF_SCHEDULE = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr')
FORMS = ('fused', 'foreach', 'capturable', 'differentiable')
"""How an optimizer computes, without a difference in what."""
MOST_NAMED = 8
_NUMBERED = re.compile(r'(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)')  # the last number of a name


@dataclass
class Found:
    """What :func:`find_checkpoint` found in a work dir.

    Attributes:
        path: The checkpoint that a training can go on from; None: there is none.
        checkpoint: Its content.
        passed_over: Others that are not whole, with the reason for each.
    """

    path: str | None = None
    checkpoint: dict | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)


def find_checkpoint(work_dir: str, saved: Sequence[str] = ()) -> Found:
    """The last whole checkpoint of a run.

    It is the one that ``last_checkpoint`` names, wherever the folder has been moved or copied since, or a later one
    of the same kind or that a signal caused, if the run was killed before it could name it. If that file is missing
    or empty or the checkpoint is not whole, it is the newest other one.

    Args:
        saved: Those of the run that may have other names or lie in other folders.
    """
    found = Found()
    for path in _candidates(work_dir, saved):
        try:
            found.path, found.checkpoint = path, read_resumable(path)
            break
        except CheckpointError as error:
            found.passed_over.append((path, str(error)))
    return found


def _candidates(work_dir: str, elsewhere: Sequence[str]) -> Iterator[str]:
    here = [path for path in glob.glob(os.path.join(glob.escape(work_dir), '*.pth')) if os.path.isfile(path)]
    saved = sorted({*here, *elsewhere}, key=os.path.getmtime, reverse=True)
    named = last_checkpoint(work_dir)
    for path in (os.path.join(work_dir, os.path.basename(named)), named):
        if '://' in path or (named and os.path.isfile(path)):
            first = [other for other in saved if _is_later(other, path)] + [path]
            yield from first
            known = {os.path.realpath(other) for other in first}
            saved = [other for other in saved if os.path.realpath(other) not in known]
            break
    yield from saved


def _is_later(path: str, named: str) -> bool:
    """Whether a checkpoint was saved after another one: numbers of one kind tell, else when it was."""
    number, of_named = (_NUMBERED.fullmatch(os.path.basename(name)) for name in (path, named))
    if '://' in named or number is None or of_named is None:
        return False
    if number.group('before', 'after') != of_named.group('before', 'after'):
        return number['before'].startswith('interrupted') and os.path.getmtime(path) > os.path.getmtime(named)
    return int(number['number']) > int(of_named['number']) and os.path.getmtime(path) >= os.path.getmtime(named)


def start_of(cfg: Config) -> dict:
    """What a config says of the weights to begin with, and whether to go on from them."""
    return dict(load_from=cfg.get('load_from'), resume=cfg.get('resume', False))


def settle_resume(cfg: Config, automatic: bool = False) -> dict | None:
    """Settle what a run with ``resume`` goes on from: the checkpoint, in ``load_from``, and its seed.

    Args:
        cfg: Config of the run. Without any checkpoint it begins, from its own ``load_from`` if it has one.
        automatic: Whether to look for the checkpoint in the work dir whatever ``load_from`` is.

    Returns:
        The checkpoint, which has been read.

    Raises:
        UserError: If there are checkpoints, but none that a training can go on from.
    """
    if not cfg.get('resume'):
        return None
    checkpoint = None
    if automatic or not cfg.get('load_from'):
        found = find_checkpoint(cfg.work_dir, saved_checkpoints(cfg))
        for _, reason in found.passed_over:
            log_first(f'Passed over: {reason}', logging.WARNING)
        if found.path is None and found.passed_over:
            raise UserError(
                f'--resume: no training can go on from any checkpoint in {cfg.work_dir} (see above); start a new one '
                'in another --work-dir'
            )
        checkpoint = found.checkpoint
        cfg.resume = checkpoint is not None
        if checkpoint is None:
            return None
        cfg.load_from = found.path
    if checkpoint is None or 'runner_type' in cfg:
        checkpoint = read_resumable(cfg.load_from, is_read_again='runner_type' in cfg)
    seed, randomness = checkpoint['meta'].get('seed'), dict(cfg.get('randomness') or {})
    if seed is not None:
        if randomness.get('seed') not in (None, seed):
            log_first(f'The seed stays {seed}, that of the run, not {randomness["seed"]}', logging.WARNING)
        cfg.randomness = {**randomness, 'seed': seed}
    return checkpoint


def require_fitting_start(cfg: Config, runner: Runner, checkpoint: dict | None) -> None:
    """Make sure that the weights to start or go on from are of this model, and none is passed over."""
    if checkpoint is not None:
        require_fit(runner.model, cfg.load_from, checkpoint)
        require_loss_scale(cfg, checkpoint)
    elif cfg.get('load_from'):
        require_backbone_match(runner.model, cfg.load_from)


def read_resumable(path: str, is_read_again: bool = False) -> dict:
    """Read a checkpoint to go on from, without the config of its run, which MMEngine would execute.

    Args:
        is_read_again: Whether a runner of MMEngine's reads the file once more, by itself.

    Raises:
        CheckpointError: If it cannot be read, has not all that a training goes on from, or would be executed.
    """
    checkpoint = read_checkpoint(path)
    meta = checkpoint.get('meta')
    missing = [key for key in ('state_dict', 'optimizer', 'message_hub') if not isinstance(checkpoint.get(key), dict)]
    if missing or not isinstance(meta, dict):
        raise CheckpointError(
            f'checkpoint {path} has weights alone (no {missing[0] if missing else "meta"}), so no training can go on '
            'from it; --pretrained starts a new one from its backbone, --cfg-options load_from= from all of it'
        )
    for key in ('iter', 'epoch'):
        most = LARGEST if key == 'iter' else meta['iter']
        if type(meta.get(key)) is not int or not 0 <= meta[key] <= most:
            at = f' at iteration {most}' if key == 'epoch' else ''
            raise CheckpointError(f'checkpoint {path} is damaged: its {key} is {meta.get(key)!r}{at}')
    if 'config' in meta and is_read_again:
        raise CheckpointError(
            f"checkpoint {path} holds a config, which the config's runner_type would execute: take runner_type out, "
            "or meta['config'] of the checkpoint"
        )
    meta.pop('config', None)
    # Of files that others wrote, or earlier versions.
    if type(meta.get('seed')) is not int or not 0 <= meta['seed'] < 2**32:
        meta.pop('seed', None)
    if not _is_run(meta.get('run')):
        meta.pop('run', None)
    if not are_states(checkpoint.get('random_states')):
        checkpoint.pop('random_states', None)
    return checkpoint


def _is_run(run: object) -> bool:
    """Whether something looks like what :func:`describe_run` returned."""
    if not isinstance(run, dict) or not isinstance(run.get('settings'), dict):
        return False
    return all(type(run.get(key)) is int and run[key] > 0 for key in ('processes', 'epoch_length'))


def describe_run(runner: Runner) -> dict:
    """What a checkpoint says of its run, to tell later what has changed: plain data."""
    return dict(
        processes=get_world_size(),
        epoch_length=len(runner.train_dataloader),
        settings=to_plain({key: value for key, value in runner.cfg.to_dict().items() if key not in OF_A_START}),
    )


def adapt_weights(runner: Runner, checkpoint: dict, path: str) -> None:
    """Let a run that does not average weights any more go on with those that were trained, not with their average.

    Args:
        checkpoint: The one that is about to be loaded, which is changed.
        path: Its path, for messages.
    """
    if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        checkpoint['state_dict'] = select_weights(checkpoint, 'raw', path)
        runner.logger.warning(
            'The checkpoint has averaged weights, and this training does not average: it goes on with the raw ones, '
            'and the average is given up; --ema keeps it'
        )


def adapt_position(runner: Runner, checkpoint: dict) -> None:
    """Warn if the run cannot continue identically; recompute the position for the new length of an epoch or step."""
    before, now = checkpoint['meta'].get('run'), describe_run(runner)
    if before is None or 'random_states' not in checkpoint:
        runner.logger.warning('The checkpoint says nothing of random states: the training goes on with others')
    if before is None:
        return
    adapt_to_accumulation(runner, checkpoint['meta'])
    length = now['epoch_length']
    if before['epoch_length'] != length and not isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.train_loop._iter = runner.epoch * length
        runner.logger.warning(
            f'An epoch has {length} iterations, at the checkpoint it had {before["epoch_length"]}: the training goes '
            f'on from the beginning of epoch {runner.epoch + 1}, as iteration {runner.iter}'
        )
    if runner.iter != checkpoint['meta']['iter']:  # gradients that were pending are of a step that begins again
        for state in checkpoint.get('random_states', ()):
            state['gradients'] = {}
    if before['processes'] != now['processes']:
        runner.logger.warning(
            f'{now["processes"]} processes go on with what {before["processes"]} began: data and random numbers are '
            'dealt out in another way, so the results are not those of an uninterrupted run'
        )
    if _is_complete(runner):
        runner.logger.warning(
            'The training is complete; --cfg-options train_cfg.max_epochs or max_iters make it longer'
        )
    changed = sorted(changed_settings(before['settings'], now['settings']))
    if changed:
        more = f' and {len(changed) - MOST_NAMED} more' if len(changed) > MOST_NAMED else ''
        runner.logger.warning(
            f'Changed since the checkpoint, and in effect from here on: {", ".join(changed[:MOST_NAMED])}{more}'
        )


def _is_complete(runner: Runner) -> bool:
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return runner.iter >= runner.max_iters
    return runner.epoch >= runner.max_epochs


class ScheduleOfConfig:
    """What config and command line say of learning rates and other settings of the optimizer, before a resume.

    MMEngine takes all of that from the checkpoint. If the config is another now, its schedule is run, without
    training, up to where the training goes on.

    Args:
        runner: A runner with optimizer and schedulers, which have done no step.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.is_single = isinstance(runner.optim_wrapper, OptimWrapper) and not isinstance(
            runner.param_schedulers, dict
        )
        if self.is_single:
            left_out = ('params', *FORMS)
            self.groups = [
                {key: copy.copy(value) for key, value in group.items() if key not in left_out}
                for group in runner.optim_wrapper.param_groups
            ]
            self.schedulers = [dict(scheduler.state_dict()) for scheduler in runner.param_schedulers or ()]

    def keep_forms(self, saved: dict) -> None:
        """Let the optimizer go on in the form that it was built in, fused or not, whatever the checkpoint's was.

        MMEngine takes the form from there, and a gradient scaler would hand the optimizer what only a fused one takes.

        Args:
            saved: The optimizer's state in the checkpoint, which is changed.
        """
        if self.is_single:
            for group, own in zip(saved['param_groups'], self.runner.optim_wrapper.param_groups):
                group.update({form: own[form] for form in FORMS if form in own})

    def take_effect(self, meta: dict) -> None:
        """Bring the config's settings back if they are not those that the checkpoint was saved under."""
        runner, before = self.runner, meta.get('run')
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        if before is None or not self._has_changed(before):
            return
        schedulers = runner.param_schedulers or []
        if not self.is_single or any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
            if not by_epoch and runner.iter != meta['iter']:
                raise other_accumulation('this kind of schedule')
            runner.logger.warning('The schedule stays that of the checkpoint: this kind cannot be changed in a resume')
            return
        for group, settings in zip(runner.optim_wrapper.param_groups, self.groups):
            group.update(settings)
        for scheduler, state in zip(schedulers, self.schedulers):
            scheduler.load_state_dict(state)
        length = len(runner.train_dataloader)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that no optimizer does its steps in between
            for done in range(1, runner.iter + 1):
                _step(schedulers, by_epoch=False)
                if by_epoch and done % length == 0:
                    _step(schedulers, by_epoch=True)
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        runner.logger.warning(f'The schedule is that of the config, not of the checkpoint; learning rate {rate:.3g}')

    def _has_changed(self, before: dict) -> bool:
        now = describe_run(self.runner)
        return any(before[key] != now[key] for key in ('processes', 'epoch_length')) or any(
            before['settings'].get(key) != now['settings'].get(key) for key in OF_SCHEDULE
        )


def _step(schedulers: list, by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch == by_epoch:
            scheduler.step()
