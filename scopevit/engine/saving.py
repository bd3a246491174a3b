"""Saving checkpoints from which a run goes on exactly."""

import bisect
import copy
import functools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import (
    all_gather_object,
    all_reduce_params,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import EMAHook, Hook, SyncBuffersHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import distributed, nn

from ..registry import HOOKS
from ..utils.errors import UserError, one_line
from ..utils.files import write_whole
from .resume import describe_run
from .states import gather_states, random_state, restore_states, set_random_state

INTERRUPTED = 'interrupted_'
"""How names of checkpoints begin that a signal caused; the next one takes their place."""
_OF_A_SAVE = ('saved_at', 'last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')


class NotSaved(UserError):
    """A checkpoint could not be written; all processes raise it."""


def _models(runner: Runner) -> list[nn.Module]:
    """The model that is trained, and the averages of it."""
    return [runner.model, *(hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook))]


def _average_statistics(runner: Runner) -> None:
    """Average what the processes' batch norms have counted, if a hook does so at an epoch's end and before validation.

    In a training by iterations the validation comes after the saving. Where a signal ends a training nothing is
    averaged, so that it goes on as if it had not been stopped.
    """
    if get_world_size() > 1 and any(isinstance(hook, SyncBuffersHook) for hook in runner.hooks):
        for model in _models(runner):
            all_reduce_params(model.buffers(), op='mean')


def _validates_after(runner: Runner, epoch: int, iteration: int) -> bool:
    """Whether a validation follows this place in a training, which comes after the saving."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        done, most = iteration, loop.max_iters
    elif isinstance(loop, EpochBasedTrainLoop) and epoch and iteration == epoch * len(loop.dataloader):
        done, most = epoch, loop.max_epochs
    else:
        return False
    interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, done + 1) - 1]
    return runner.val_loop is not None and done >= loop.val_begin and (done % interval == 0 or done == most)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """Save checkpoints that a run can go on from exactly, and remove an old one after the new one is whole.

    MMEngine's own hook removes the old file first. Its options are the same. If one cannot be saved, on a full disk for
    example, the training goes on to the next one, and fails at its end if that could not be saved, either.

    Attributes:
        saved_at: Epochs and iterations that had been trained when the last one was saved.
        unsaved: Why the last one could not be saved.
        is_saving: Whether one is being saved now.
    """

    is_saving = False
    saved_at: tuple[int, int] | None = None
    unsaved: str | None = None
    file_backend: Any

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self.by_epoch:
            _average_statistics(runner)
        with self._or_as_before(runner, goes_on=True):
            outdated = None
            if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    outdated = self.keep_ckpt_ids[0]
                self.keep_ckpt_ids.append(step)  # which drops the first, if it is full
                runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            runner.message_hub.update_info('outdated_ckpt_id', outdated)
            self._save(runner, self.filename_tmpl.format(step), meta)
            self._remove_outdated(outdated)

    def _remove_outdated(self, step: int | None) -> None:
        if step is not None:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))

    def before_train(self, runner: Runner) -> None:
        """Also remove what the run was killed before it could remove."""
        super().before_train(runner)
        self._remove_outdated(runner.message_hub.runtime_info.get('outdated_ckpt_id'))

    def save_as(self, runner: Runner, filename: str, meta: dict) -> None:
        """Save a checkpoint as the last one; all processes have to call it.

        Raises:
            NotSaved: If it cannot be written.
        """
        with self._or_as_before(runner, goes_on=False):
            self._save(runner, filename, meta)

    @contextmanager
    def _or_as_before(self, runner: Runner, goes_on: bool) -> Iterator[None]:
        """Roll back the hook's state if saving fails, and say what to do."""
        hub = runner.message_hub.runtime_info
        noted = {name: copy.copy(getattr(self, name)) for name in _OF_A_SAVE if hasattr(self, name)}
        known = dict(hub)
        self.is_saving = True
        try:
            yield
        except NotSaved as error:
            self.__dict__.update(noted)
            hub.clear()
            hub.update(known)
            last = hub.get('last_ckpt')
            whole = f'; --resume would go on from {last}' if last else '; no earlier one was saved'
            self.unsaved = f'{error}: make room there{whole}'
            if not goes_on:
                raise NotSaved(self.unsaved) from error
            runner.logger.warning(f'{self.unsaved}. The training goes on, and saves when the next checkpoint is due')
        finally:
            self.is_saving = False

    def _save(self, runner: Runner, filename: str, meta: dict) -> None:
        before = os.path.basename(runner.message_hub.runtime_info.get('last_ckpt') or '')
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        GoOnHook.of(runner).gather(runner)
        due = _validates_after(runner, meta['epoch'], meta['iter'])
        _Agreeing(runner, self._note_last).save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(validating=due) | meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.saved_at, self.unsaved = (meta['epoch'], meta['iter']), None
        if before.startswith(INTERRUPTED) and before != filename:
            self._remove(self.file_backend.join_path(self.out_dir, before))

    def _note_last(self, runner: Runner) -> None:
        path = os.path.join(runner.work_dir, 'last_checkpoint')
        try:
            write_whole(path, self.last_ckpt)
        except UserError:  # without this file the newest checkpoint is taken
            Path(path).unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        removed: list[str] = []
        self.file_backend = _Postponing(backend, removed)
        try:
            with self._or_as_before(runner, goes_on=True):
                super()._save_best_checkpoint(_Agreeing(runner), metrics)
        finally:
            self.file_backend = backend
        # MMEngine has one of the two, by the number of metrics.
        kept = (getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in removed:
            if path not in kept:
                self._remove(path)

    def after_train(self, runner: Runner) -> None:
        """Fail if what the training ends with could not be saved.

        Raises:
            NotSaved: If so.
        """
        super().after_train(runner)
        if self.unsaved is not None:
            raise NotSaved(self.unsaved)

    def _remove(self, path: str) -> None:
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)


class _Agreeing:
    """A runner that raises in all processes if the one that saves cannot.

    Args:
        runner: The runner.
        note: What the process that saves does before the others hear of it, who may end then.
    """

    def __init__(self, runner: Any, note: Callable[[Any], None] | None = None) -> None:
        self.runner = runner
        self.note = note

    def save_checkpoint(self, *args: Any, **options: Any) -> None:
        failure: list[str | None] = [None]
        bug: Exception | None = None
        try:
            self.runner.save_checkpoint(*args, **options)
            if self.note is not None and is_main_process():
                self.note(self.runner)
        except UserError as error:
            failure = [str(error)]
        except Exception as error:  # the others wait to hear of it
            failure, bug = [one_line(error)], error
        broadcast_object_list(failure)
        if bug is not None:
            raise bug
        if failure[0] is not None:
            raise NotSaved(failure[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)


class _Postponing:
    """A file backend that notes what it is to remove."""

    def __init__(self, backend: Any, removed: list[str]) -> None:
        self.backend = backend
        self.remove = removed.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def _length(data: Any) -> int | None:
    """None if there is none, as of a stream."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _data_of_each(lengths: Sequence[tuple[int | None, ...]], hosts: Sequence[str]) -> str:
    """How much data the processes have, those of one machine that have as much together."""
    ranks: dict[tuple, list[str]] = {}
    for rank, found in enumerate(zip(hosts, lengths)):
        ranks.setdefault(found, []).append(str(rank))
    kinds = ('training images', 'training batches', 'validation images')
    return '; '.join(
        f'process {", ".join(those)}{f" on {host}" * (len(set(hosts)) > 1)}: '
        + ', '.join(f'{number} {kind}' for number, kind in zip(found, kinds) if number is not None)
        for (host, found), those in ranks.items()
    )


class GoOnHook(Hook):
    """Lets checkpoints save what MMEngine's lack, and a run that goes on begin with it.

    Validation takes nothing from the random states, so that it makes no difference whether a run is stopped before.

    Attributes:
        states: Those of the processes, until they are set.
        validates: Whether the run was stopped in a validation or before one, which is to be made up for.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.states: list[dict] | None = None
        self.validates = False
        self._saved: list[dict] | None = None
        self._before_val: dict | None = None

    @functools.cached_property
    def group(self) -> Any:
        """All processes, joined over gloo: a GPU would have to be waited for. All of them have to ask at once."""
        if get_world_size() == 1:
            return None
        try:
            return distributed.new_group(backend='gloo')
        except RuntimeError as error:
            raise UserError(
                f'the processes cannot be joined over gloo ({one_line(error)}); GLOO_SOCKET_IFNAME in the environment '
                'names the network interface by which the machines reach one another'
            ) from error

    @classmethod
    def of(cls, runner: Runner) -> 'GoOnHook':
        """That of a runner, which gets one if it has none."""
        for hook in runner.hooks:
            if isinstance(hook, cls):
                return hook
        runner.register_hook(cls())
        return cls.of(runner)

    def before_train(self, runner: Runner) -> None:
        """Make sure that all processes go on from the same place, with as much data.

        Raises:
            UserError: If they do not: each has read the checkpoint and the data that it found.
        """
        train, val = runner.train_dataloader, getattr(runner.val_loop, 'dataloader', None)
        # Processes may differ by a batch in validations, and where a training by iterations draws without an end.
        batches = None if isinstance(runner.train_loop, IterBasedTrainLoop) else train
        lengths = tuple(map(_length, (getattr(train, 'dataset', None), batches, getattr(val, 'dataset', None))))
        places, of_all, hosts = zip(*all_gather_object((runner.iter, lengths, socket.gethostname())))
        if len(set(places)) > 1:
            raise UserError(
                f'the processes would go on from iterations {", ".join(map(str, places))}: the work dir has to be the '
                'same for all machines; share it, or copy its checkpoint and last_checkpoint to each'
            )
        if len(set(of_all)) > 1:
            raise UserError(
                f'the processes cannot train together on different data ({_data_of_each(of_all, hosts)}): all need '
                'the same files and config; copy what is missing, or put the data where all machines read them'
            )

    def gather(self, runner: Runner) -> None:
        """Collect the processes' states for the checkpoint that is saved next; all of them have to call it."""
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        pending = getattr(runner.optim_wrapper, '_inner_count', 0) % accumulated != 0
        state = self._before_val or random_state()
        self._saved = gather_states(_models(runner), state, with_gradients=pending, group=self.group)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the processes' states and what the run is."""
        checkpoint['random_states'] = self._saved
        checkpoint['meta']['run'] = describe_run(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Go on with the states of the checkpoint."""
        self.restore(runner)

    def restore(self, runner: Runner) -> None:
        """Set the states of the checkpoint, once, if there are as many processes as then."""
        if self.states and len(self.states) == get_world_size():
            restore_states(self.states[get_rank()], _models(runner))
        self.states = None

    def before_val(self, runner: Runner) -> None:
        """Keep the random states."""
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Set them as they were."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None
