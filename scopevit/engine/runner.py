"""MMEngine's Runner with a screen that can be read, and trainings that can be stopped and go on anywhere."""

import copy
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, is_main_process
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.visualization import Visualizer
from torch import Generator, OutOfMemoryError, nn
from torch.utils.data import DataLoader

from ..apis.model import computes
from ..utils.checkpoint import CheckpointError, get_state_dict, read_checkpoint
from ..utils.errors import UserError, one_line, other_is_gone, raise_own
from ..utils.files import whole_file
from ..utils.silence import silence
from ..utils.wrappers import unwrap
from .accumulation import iterations_done
from .averages import UpdateAtOnceHook
from .console import ScreenHook, UntilTheFirstIteration, screen_handlers
from .logs import survive_unwritable_curves, survive_unwritable_logs
from .optim import step_as_few_groups
from .placed_sampler import Items, PlacedBatchSampler, PlacedItems
from .preemption import StopHook, start_worker
from .resume import ScheduleOfConfig, adapt_position, adapt_weights, read_resumable, settle_resume, start_of
from .saving import CheckpointHook, GoOnHook
from .states import MISFITS


class EpochLoop(EpochBasedTrainLoop):
    """Training by epochs that can go on in the middle of one."""

    def run_epoch(self) -> None:
        """Run an epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for number, batch in enumerate(self.dataloader, getattr(self.dataloader.batch_sampler, 'first', 0)):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class IterLoop(IterBasedTrainLoop):
    """Training by iterations that goes on without reading the data before."""

    dataloader_iterator: Any

    def run(self) -> object:
        """Run the iterations that are left."""
        sampler = self.dataloader.batch_sampler
        if isinstance(sampler, PlacedBatchSampler):
            self.dataloader_iterator = _WithoutTheFirst(self.dataloader_iterator, sampler)
        return super().run()


class _WithoutTheFirst:
    """MMEngine takes the batches of the iterations that were run before; the data loader begins after them."""

    def __init__(self, batches: Any, sampler: PlacedBatchSampler) -> None:
        self.batches = batches
        self.sampler = sampler
        self.count = sampler.left_out

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> object:
        if self.count:
            self.count -= 1
            return None
        self.batches._epoch = self.sampler.epoch  # from which MMEngine counts, if the data come to an end
        return next(self.batches)

    def __getattr__(self, name: str) -> object:
        return getattr(self.batches, name)


_BY_EPOCH = {'EpochBasedTrainLoop': True, 'IterBasedTrainLoop': False}


def _name(kind: object) -> str:
    """What one of MMEngine's own classes is called, given as such or by its name; another class's name is longer."""
    if isinstance(kind, type):
        return kind.__name__ if kind.__module__.startswith('mmengine.') else f'{kind.__module__}.{kind.__name__}'
    return str(kind).removeprefix('mmengine.')


class QuietRunner(Runner):
    """MMEngine's Runner; its log file is the same.

    Until the first iteration the screen shows what a user needs alone. Checkpoints are written all or nothing, and a
    training that goes on from one goes on as if it had never stopped.
    """

    counts_epochs: bool | None = None
    """Whether the training is by epochs; None if it is neither MMEngine's by epochs nor by iterations."""
    _checkpoint: dict | None = None
    _load_from: str | None
    _resume: bool

    @classmethod
    def from_cfg(cls, cfg: Config, checkpoint: dict | None = None, given: dict | None = None) -> 'QuietRunner':
        """The Runner of a config; with ``resume`` its seed is that of the checkpoint.

        What this start loads and whether it resumes is the start's alone: the config that the Runner keeps and saves
        says what it was given, so that a training of the saved config does not go on from this one's checkpoint.

        Args:
            checkpoint: The one to go on from, if :func:`settle_resume` has read it before.
            given: The config's :func:`start_of` before command line and work dir changed it; None: as it is.

        Raises:
            UserError: If there are checkpoints, but none that a training can go on from.
        """
        given = given or start_of(cfg)
        checkpoint = checkpoint or settle_resume(cfg)
        kept = copy.deepcopy(cfg)
        kept.update(given)
        runner = super().from_cfg(kept)
        runner._checkpoint = checkpoint
        runner._load_from, runner._resume = cfg.get('load_from'), cfg.get('resume', False)
        return runner

    def build_logger(self, *args: Any, **options: Any) -> logging.Logger:
        """MMEngine's logger, with a filter for the screen."""
        logger = super().build_logger(*args, **options)
        survive_unwritable_logs(logger)
        self.screen = UntilTheFirstIteration()
        for handler in screen_handlers(logger):
            handler.addFilter(self.screen)
        return logger

    def build_visualizer(self, *args: Any, **options: Any) -> Visualizer:
        """MMEngine's visualizer, or one that a toolbox has."""
        visualizer = super().build_visualizer(*args, **options)
        survive_unwritable_curves(visualizer)
        return visualizer

    def call_hook(self, fn_name: str, **options: Any) -> None:
        """MMEngine's, which tells a hook's TypeError without the file and line that raised it."""
        for hook in self.hooks:
            if hasattr(hook, fn_name):
                getattr(hook, fn_name)(self, **options)

    # Building

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """MMEngine's loop; one by epochs or iterations can go on anywhere."""
        if not isinstance(loop, dict):
            return loop
        self.register_hook(ScreenHook(self.screen), priority='VERY_LOW')
        self.register_hook(GoOnHook())
        self.register_hook(StopHook())
        self.register_hook(UpdateAtOnceHook())
        by_epoch = loop.get('by_epoch', _BY_EPOCH.get(_name(loop.get('type'))))
        if by_epoch is None or {'by_epoch', 'type'} <= set(loop):
            return super().build_train_loop(loop)
        self.counts_epochs = bool(by_epoch)
        options = {key: value for key, value in loop.items() if key not in ('by_epoch', 'type')}
        return super().build_train_loop({**options, 'type': EpochLoop if by_epoch else IterLoop})

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper:
        """MMEngine's; a step takes the many groups that it makes of parameters for as few as there are settings."""
        wrapper = super().build_optim_wrapper(optim_wrapper)
        if not isinstance(wrapper, OptimWrapperDict):
            step_as_few_groups(wrapper.optimizer)
        return wrapper

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """MMEngine's loop."""
        if isinstance(loop, dict):
            self.register_hook(ScreenHook(self.screen), priority='VERY_LOW')
        return super().build_test_loop(loop)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """MMEngine's hooks, but for checkpoints one that removes an old file after the new one is whole."""
        hooks = dict(hooks or {})
        saving = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(saving, dict) and _name(saving.get('type')) == 'CheckpointHook':
            hooks['checkpoint'] = {**saving, 'type': CheckpointHook}
        super().register_default_hooks(hooks)

    def build_dataloader(  # type: ignore[override]
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """MMEngine's data loader; that of the training can begin anywhere and takes nothing from the random state.

        Processes with seeds of their own have one order of the data, that of the seed which they would share:
        MMEngine, which has added the rank to ``seed``, draws another for each data loader.
        """
        if not isinstance(dataloader, dict):
            return dataloader
        shared = seed - get_rank() if diff_rank_seed and seed is not None else seed
        # Samplers and batch samplers that are built already stay as they are.
        placed = self.counts_epochs is not None and dataloader is self._train_dataloader
        placed = placed and isinstance(dataloader.get('sampler'), dict)
        placed = placed and isinstance(dataloader.get('batch_sampler') or {}, dict)
        if shared is not None and diff_rank_seed and isinstance(dataloader.get('sampler'), dict):
            dataloader = {**dataloader, 'sampler': {'seed': shared, **dataloader['sampler']}}
        if placed:
            dataloader = self._with_places(dataloader)
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        # Otherwise it would draw its workers' seeds from the random state of the training.
        loader.generator = Generator().manual_seed(seed or 0)
        loader.worker_init_fn = functools.partial(start_worker, loader.worker_init_fn)
        if placed and not dataloader['batch_sampler']['batches']:  # torch states no size beside a batch sampler
            object.__setattr__(loader, 'batch_size', dataloader['batch_size'])
            object.__setattr__(loader, 'drop_last', dataloader['batch_sampler']['drop_last'])
        if placed:
            loader.dataset.__getitems__ = PlacedItems(loader.dataset, shared or 0, get_rank())
        elif not hasattr(loader.dataset, '__getitems__'):
            loader.dataset.__getitems__ = Items(loader.dataset)
        return loader

    def _with_places(self, dataloader: dict) -> dict:
        batches = dataloader.get('batch_sampler')
        size = dataloader.get('batch_size') or (batches or {}).get('batch_size') or 1
        placed = dict(type='scopevit.PlacedBatchSampler', batches=batches, done=self._done())
        if batches is None:
            placed['drop_last'] = dataloader.get('drop_last', False)
        kept = {key: value for key, value in dataloader.items() if batches is not None or key != 'drop_last'}
        return {**kept, 'batch_size': size, 'batch_sampler': placed}

    def _done(self) -> dict | None:
        """Where the data loader of a training that goes on begins."""
        if self.resumed_from is None:
            return None
        meta = self.resumed_from['meta']
        if not self.counts_epochs:
            return dict(iter=iterations_done(meta, self.cfg))
        return dict(epoch=meta['epoch'], iter=meta['iter'], epoch_length=(meta.get('run') or {}).get('epoch_length'))

    # Checkpoints

    @property
    def resumed_from(self) -> dict | None:
        """The checkpoint that this training goes on from, until it has been loaded; it is read once.

        Raises:
            CheckpointError: If it cannot be read or no training can go on from it.
        """
        if self._resume and self._load_from is not None and not self._has_loaded and self._checkpoint is None:
            self._checkpoint = read_resumable(self._load_from)
        return self._checkpoint

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """MMEngine's, for the batch that accumulation makes."""
        accumulated = getattr(optim_wrapper, '_accumulative_counts', 1)
        if auto_scale_lr and accumulated > 1:
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': auto_scale_lr['base_batch_size'] / accumulated}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def dump_config(self) -> None:
        """MMEngine's, written all or nothing."""
        if is_main_process():
            name = os.path.basename(self.cfg.filename or f'{self.timestamp}.py')
            with whole_file(os.path.join(self.work_dir, name)) as temporary:
                self.cfg.dump(temporary)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **options: Any) -> None:
        """MMEngine's, written all or nothing where the folder is one of this machine."""
        if not is_main_process():
            return
        if '://' in out_dir:
            super().save_checkpoint(out_dir, filename, *args, **options)
            return
        with whole_file(os.path.join(out_dir, filename)) as temporary:
            super().save_checkpoint(*os.path.split(temporary), *args, **options)

    def load_checkpoint(self, filename: str, *args: Any, **options: Any) -> dict:
        """MMEngine's; weights are read by :func:`read_checkpoint` and found by :func:`get_state_dict`.

        So they are those that were checked before, in any format and wherever they lie, and nothing is executed. A
        checkpoint to go on from is that of :attr:`resumed_from`.
        """
        checkpoint = self._checkpoint if self._resume and filename == self._load_from else None
        if checkpoint is None and not (args or options):
            checkpoint = read_checkpoint(filename)
            checkpoint = {**checkpoint, 'state_dict': get_state_dict(checkpoint, filename)}
            self.logger.info(f'Load checkpoint from {filename}')
        # What MMEngine prints, every process would.
        with nullcontext() if is_main_process() else silence(prints=True):
            if checkpoint is None:  # to be loaded in another way
                return super().load_checkpoint(filename, *args, **options)
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
            _load_checkpoint_to_model(unwrap(self.model), checkpoint, strict=False)
        self._has_loaded = True
        return checkpoint

    def resume(self, filename: str, *args: Any, **options: Any) -> None:
        """MMEngine's; settings of the schedule that were changed since take effect.

        Raises:
            CheckpointError: If the content of the checkpoint does not fit the run.
        """
        if filename != self._load_from:  # by hand; else it has been read
            self._checkpoint = None
        self._resume, self._load_from = True, filename
        checkpoint = self._checkpoint = self._checkpoint or read_resumable(filename)
        schedule = ScheduleOfConfig(self)
        try:
            adapt_weights(self, checkpoint, filename)
            schedule.keep_forms(checkpoint['optimizer'])
            super().resume(filename, *args, **options)
        except MISFITS as error:
            raise_own(error)
            if isinstance(error, (UserError, OutOfMemoryError)) or not computes(get_device()):
                raise
            raise CheckpointError(
                f'no training can go on from checkpoint {filename}, which is of another run or damaged: '
                f'{one_line(error)}'
            ) from error
        adapt_position(self, checkpoint)
        schedule.take_effect(checkpoint['meta'])
        go_on = GoOnHook.of(self)
        go_on.states, go_on.validates = checkpoint.get('random_states'), checkpoint['meta'].get('validating') is True
        self._checkpoint = None

    def train(self) -> nn.Module:
        """MMEngine's; afterwards signals mean what they did before."""
        stops = [hook for hook in self.hooks if isinstance(hook, StopHook)]
        try:
            return super().train()
        except RuntimeError as error:
            for stop in stops:
                stop.stop_listening()
                if stop.signal is not None and other_is_gone(error):  # and the launcher ends those that are left
                    raise stop.unsaved(self) from None
            raise
        finally:
            for stop in stops:
                stop.stop_listening()
