"""What a run shows on the screen: a summary at its start, progress in a terminal, no more than one can read.

Everything that MMEngine logs goes to the log file as ever. Until the first iteration the screen
shows warnings and what this package says; the configuration, hooks and options of each parameter
are in the log file and in the config that is saved beside it.
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..apis.model import backbone_of
from ..utils.errors import UserError
from ..utils.shipped import PACKAGE
from ..utils.wrappers import unwrap
from .hooks import PretrainedBackboneHook

# Said by libraries about themselves: nothing that a user does would change it.
USELESS_WARNINGS = (
    'Grad strides do not match bucket view strides',  # the layout of a depthwise convolution's gradient
    'The given NumPy array is not writable',  # mmpretrain reads Fashion-MNIST so
    'torch.meshgrid: in an upcoming release',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'The metainfo config file',  # mmpose finds it under another path, and says so
)
LINES = 4  # of the log in an epoch that is shorter than its interval
LIBRARIES = r'(mm\w+|torch|torchvision|timm|pkg_resources|importlib)(\.|$)'


def silence_useless_warnings() -> None:
    """Hide warnings that nobody can act on, and in all processes but the first all of them."""
    for message in USELESS_WARNINGS:
        warnings.filterwarnings('ignore', message=f'.*{re.escape(message)}')
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings('ignore', category=category, module=LIBRARIES)
    if not is_first_process():
        warnings.simplefilter('ignore')


def is_first_process() -> bool:
    """Whether this process is the first of those that train together, also before they have joined."""
    return os.environ.get('RANK', '0') == '0'


def log_first(message: str, level: int = logging.INFO) -> None:
    """Log in the first process alone, also before they have joined."""
    if is_first_process():
        print_log(message, logger='current', level=level)


class UntilTheFirstIteration(logging.Filter):
    """Lets through warnings and the words of this package alone, until it is opened."""

    is_open = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return not any(words in record.getMessage() for words in USELESS_WARNINGS)
        return self.is_open or os.path.realpath(record.pathname).startswith(str(PACKAGE) + os.sep)


class ScreenHook(Hook):
    """Opens the screen's filter at the first iteration.

    Args:
        screen: The filter.
    """

    def __init__(self, screen: UntilTheFirstIteration) -> None:
        self.screen = screen

    def before_train(self, runner: Runner) -> None:
        """Let the log's lines follow the length of an epoch, and say where a training goes on."""
        shorten_log_interval(runner)
        if runner.iter:
            epoch = f'epoch {runner.epoch}, ' if isinstance(runner.train_loop, EpochBasedTrainLoop) else ''
            runner.logger.info(f'The training goes on from {epoch}iteration {runner.iter}')

    def _before_iter(self, *args: object, **options: object) -> None:
        self.screen.is_open = True


def shorten_log_interval(runner: Runner) -> None:
    """Log several times in each epoch, or training by iterations, that is shorter than the log's interval."""
    loop = runner.train_loop
    length = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook) and hook.interval > length:
            hook.interval = max(1, length // LINES)


def screen_handlers(logger: logging.Logger) -> list[logging.StreamHandler]:
    """Those of a logger's handlers that write on the screen."""
    return [
        h for h in logger.handlers if isinstance(h, logging.StreamHandler) and not isinstance(h, logging.FileHandler)
    ]


def log_summary(runner: Runner, config: str) -> None:
    """Say what is about to be trained, on what, and where the log is.

    Args:
        config: Name of the config.
    """
    cfg, model = runner.cfg, unwrap(runner.model)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    try:
        name, backbone = backbone_of(model)
        kind = f'{type(model).__name__} with {type(backbone).__name__} as {name}'
    except UserError:
        kind = type(model).__name__
    lines = {
        'task': f'{cfg.get("default_scope", "mmengine")}, {config}',
        'model': f'{kind}, {parameters / 1e6:.2f} M parameters'
        + ('' if trained == parameters else f', {trained / 1e6:.2f} M of them trained'),
        'training data': _data(runner.train_loop.dataloader),
        'validation data': _data(getattr(runner.val_loop, 'dataloader', None)) if runner.val_loop else 'none',
        'batch': _batch(runner),
        'schedule': _schedule(runner),
        'device': _device(),
        'operators': _operators(),
        'weights': _weights(runner),
        'log': os.path.join(runner.log_dir, f'{runner.timestamp}.log'),
    }
    runner.logger.info('\n' + '\n'.join(f'  {key:17}{value}' for key, value in lines.items()))


def _data(loader: object) -> str:
    dataset = getattr(loader, 'dataset', None)
    if dataset is None:
        return 'none'
    root = getattr(dataset, 'data_root', None)
    return f'{type(dataset).__name__}, {len(dataset):,} samples' + (f' in {root}' if root else '')


def _weights(runner: Runner) -> str:
    if runner._resume and runner._load_from:
        return f'go on from {runner._load_from}'
    pretrained = [hook.checkpoint for hook in runner.hooks if isinstance(hook, PretrainedBackboneHook)]
    if pretrained:
        return f'backbone of {pretrained[-1]}'
    return f'of {runner._load_from}' if runner._load_from else 'initialised as the config says'


def _batch(runner: Runner) -> str:
    loader = runner.train_loop.dataloader
    size = getattr(loader, 'batch_size', None) or getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None)
    if size is None:
        return 'as its sampler says'
    accumulated = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    factors = ((size, 'image'), (get_world_size(), 'process'), (accumulated, 'iteration'))
    shown = [_counted(count, what) for count, what in factors if count > 1 or what == 'image']
    total = size * get_world_size() * accumulated
    return shown[0] if len(shown) == 1 else f'{total} = {" x ".join(shown)}'


def _schedule(runner: Runner) -> str:
    loop = runner.train_loop
    steps = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
    length = _counted(loop.max_iters, 'iteration')
    if steps:
        length = f'{_counted(loop.max_epochs, "epoch")} of {_counted(steps, "iteration")}'
    optimizer = (runner.cfg.get('optim_wrapper') or {}).get('optimizer')
    optimizer = optimizer if isinstance(optimizer, dict) else {}
    rate = f', learning rate {optimizer["lr"]:g}' if isinstance(optimizer.get('lr'), (int, float)) else ''
    scaling = runner.cfg.get('auto_scale_lr') or {}
    if rate and scaling.get('enable'):
        rate += f' for {_counted(scaling["base_batch_size"], "image")}, scaled to the batch'
    return f'{length}, {optimizer.get("type", "an optimizer")}{rate}'


def _device() -> str:
    count, device = get_world_size(), get_device()
    if device != 'cpu':
        return f'{count} x {torch.cuda.get_device_name() if device == "cuda" else device}'
    return f'CPU, {_counted(count, "process")} of {_counted(torch.get_num_threads(), "thread")}'


def _operators() -> str:
    operators = getattr(sys.modules.get('mmcv._ext'), '__file__', None)
    if operators is None:
        return 'none of mmcv'
    return "torchvision's and PyTorch's for mmcv-lite" if operators.endswith('.py') else "mmcv's own"


def _counted(count: int, what: str) -> str:
    plural = '' if count == 1 else 'es' if what.endswith('s') else 's'
    return f'{count} {what}{plural}'


class _ProgressHook(Hook):
    """Moves the bars of a progress display."""

    priority = 'VERY_LOW'

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: list[TaskID] = []

    def _start(self, what: str, total: int, done: int = 0) -> None:
        self.bars.append(self.progress.add_task(what, total=total, completed=done))

    def _end(self) -> None:
        self.progress.remove_task(self.bars.pop())

    def before_train(self, runner: Runner) -> None:
        self._start('training', runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, *args: object, **options: object) -> None:
        self.progress.update(self.bars[-1], completed=runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        self._end()

    def before_val_epoch(self, runner: Runner) -> None:
        self._start('validating', len(runner.val_dataloader))

    def before_test_epoch(self, runner: Runner) -> None:
        self._start('testing', len(runner.test_dataloader))

    def after_val_iter(self, runner: Runner, *args: object, **options: object) -> None:
        self.progress.advance(self.bars[-1])

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._end()

    after_test_epoch = after_val_epoch


@contextmanager
def progress_shown(runner: Runner) -> Iterator[None]:
    """Show progress below the log while something runs, if the screen is a terminal; else the log's lines say it."""
    if not (is_main_process() and sys.stdout.isatty()):
        yield
        return
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=2, transient=True) as progress:
        runner.register_hook(_ProgressHook(progress))
        handlers = screen_handlers(runner.logger)
        streams = [handler.setStream(sys.stdout) for handler in handlers]  # rich's, which keeps lines above the bars
        try:
            yield
        finally:
            for handler, stream in zip(handlers, streams):
                if stream is not None:  # else rich had not put its own in place
                    handler.setStream(stream)
