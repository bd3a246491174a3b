"""What options of a training write into its config: mixed precision, accumulation, averaged weights, loggers."""

import argparse
import importlib.util
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

from ..utils.arguments import LOGGERS
from ..utils.checkpoint import read_checkpoint
from ..utils.config import as_list, type_name, walk
from ..utils.errors import UserError

# Each toolbox's hook that draws predictions, switched on. mmpretrain writes into the image, which has to be large.
_DRAWING = dict(
    mmpretrain=dict(type='VisualizationHook', enable=True, resize=256),
    mmdet=dict(type='DetVisualizationHook', draw=True),
    mmseg=dict(type='SegVisualizationHook', draw=True),
    mmpose=dict(type='PoseVisualizationHook', enable=True),
)
_FIGURES = 8  # of each validation
# What backends are told beside their type. Weights & Biases counts calls, also those with figures, unless it is told of
# the iterations, by which a resumed training goes on; in the same run its config differs, which is refused otherwise.
_TOLD = dict(
    WandbVisBackend=dict(
        define_metric_cfg=[dict(name='*', step_metric='iter')], init_kwargs=dict(allow_val_change=True)
    )
)
# What is counted in iterations, each a batch or a part of one.
_OF_SCHEDULERS = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'total_steps', 'periods')
_OF_LOOPS = ('max_iters', 'val_begin', 'val_interval', 'dynamic_intervals')
_OF_CHECKPOINTS = ('interval', 'save_begin')
_OF_AVERAGES = ('interval', 'begin_iter', 'gamma')


def use_amp(cfg: Config, dtype: str | None = None) -> None:
    """Train in mixed precision.

    Args:
        dtype: 'bfloat16' or 'float16'; None: what the config and its ``gpu.amp_dtype`` say.

    Raises:
        UserError: If the config's optim_wrapper is of a kind of its own, or float16 is wanted without a GPU.
    """
    if cfg.optim_wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp cannot replace the optim_wrapper {cfg.optim_wrapper.type} of this config')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if dtype is None:
        return
    if dtype == 'float16' and not torch.cuda.is_available():
        raise UserError('--amp-dtype float16 needs a GPU; on CPUs mixed precision is --amp-dtype bfloat16')
    cfg.optim_wrapper.pop('dtype', None)
    if dtype == 'float16' and cfg.optim_wrapper.loss_scale == dict(enabled=False):  # as a run in bfloat16 has saved it
        cfg.optim_wrapper.loss_scale = 'dynamic'
    cfg.merge_from_dict({'gpu.amp_dtype': dtype})


def accumulate(cfg: Config, parts: int) -> None:
    """Run each batch in parts, with one step of the optimizer for all of them.

    The batch and all that is counted in steps stay what they are: lengths in iterations, of which
    there are more now, become longer.

    Raises:
        UserError: If the batch cannot be divided so.
    """
    size = cfg.train_dataloader.get('batch_size')
    if not isinstance(size, int) or size % parts:
        raise UserError(
            f'--accumulate {parts} cannot divide a batch of {size} images: choose a divisor, or another batch by '
            f'--cfg-options train_dataloader.batch_size={parts * max((size or 0) // parts, 1)}'
        )
    # Of the first parts, which come before the first step.
    warnings.filterwarnings('ignore', message='Detected call of `scheduler.step')
    cfg.train_dataloader.batch_size = size // parts
    cfg.optim_wrapper.accumulative_counts = parts * cfg.optim_wrapper.get('accumulative_counts', 1)
    if 'max_iters' in cfg.train_cfg:
        _lengthen(cfg.train_cfg, _OF_LOOPS, parts)
    for scheduler in walk(cfg.get('param_scheduler')):
        if not scheduler.get('by_epoch', True):
            _lengthen(scheduler, _OF_SCHEDULERS, parts)
            if type_name(scheduler) == 'ExponentialLR':
                scheduler['gamma'] **= 1 / parts
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not saving.get('by_epoch', True):
        _lengthen(saving, _OF_CHECKPOINTS, parts)
    for hook in _averaging(cfg):
        hook.setdefault('interval', 1)
        _write_gamma(cfg, hook)
        _lengthen(hook, _OF_AVERAGES, parts)


def average_weights(cfg: Config) -> None:
    """Validate and save the moving average of the weights over the last tenth of the steps, at most 10,000.

    A config that averages weights already stays as it is.
    """
    if _averaging(cfg):
        return
    hooks = as_list(cfg.get('custom_hooks'))
    for hook in hooks:
        if type_name(hook) == 'SyncBuffersHook':
            hook['type'] = 'scopevit.SyncBuffersHook'  # also those of the average
    average = dict(ema_type='MomentumAnnealingEMA', momentum=1e-4, gamma=10, update_buffers=True)
    cfg.custom_hooks = [*hooks, dict(type='EMAHook', **average, priority='ABOVE_NORMAL')]


def log_to(cfg: Config, names: Sequence[str]) -> None:
    """Log also to these loggers, figures of predictions in each validation included.

    Args:
        names: Some of ``LOGGERS``.

    Raises:
        UserError: If a logger's package is not installed.
    """
    missing = [package for _, package in (LOGGERS[name] for name in names) if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f'--log-to needs what is not installed: pip install {" ".join(missing)}')
    cfg.setdefault('visualizer', dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]))
    backends = as_list(cfg.visualizer.get('vis_backends'))
    known = [type_name(backend) for backend in backends]
    wanted = [LOGGERS[name][0] for name in dict.fromkeys(names)]
    added = [dict(type=kind, **_TOLD.get(kind, {})) for kind in wanted if kind not in known]
    cfg.visualizer.vis_backends = backends + added
    cfg.setdefault('default_hooks', {})
    hooks = cfg.default_hooks
    drawing = _DRAWING.get(cfg.get('default_scope'))
    if drawing is not None:
        said = hooks.get('visualization') or {}
        hooks.visualization = {**drawing, **{key: said[key] for key in said if key not in ('enable', 'draw')}}


def draw_in_each_validation(runner: Runner) -> None:
    """Let predictions of some images be drawn in each validation, however few it has.

    The toolboxes draw every 50th batch, mmpretrain every 5,000th image, unless the config says an interval.
    """
    said = (runner.cfg.get('default_hooks') or {}).get('visualization') or {}
    if runner.val_loop is None or 'interval' in said:
        return
    loader = runner.val_loop.dataloader
    for hook in runner.hooks:
        kind = type(hook).__name__
        if kind in [drawing['type'] for drawing in _DRAWING.values()]:
            items = loader.dataset if kind == 'VisualizationHook' else loader
            hook.interval = -(-len(items) // _FIGURES)


def merge_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's wishes into the config, which is saved beside the results.

    Raises:
        UserError: If the config does not train, or not in such a way.
    """
    missing = [key for key in ('train_dataloader', 'train_cfg', 'optim_wrapper') if not isinstance(cfg.get(key), dict)]
    if missing and 'runner_type' not in cfg:  # another Runner may need other settings
        raise UserError(f'config {args.config} does not train: it has no {" and no ".join(missing)}')
    if args.amp or args.amp_dtype is not None:
        use_amp(cfg, args.amp_dtype)
    if args.ema:
        average_weights(cfg)
    if args.accumulate > 1:
        accumulate(cfg, args.accumulate)
    if args.log_to is not None:
        log_to(cfg, args.log_to)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    given = dict(seed=args.seed, deterministic=args.deterministic or None)
    given = {key: value for key, value in given.items() if value is not None}
    if given:  # without a seed of its own, a random one
        cfg.randomness = {'seed': None, **(cfg.get('randomness') or {}), **given}
    if args.resume is not None:
        cfg.resume = True
        if args.resume != 'auto':
            cfg.load_from = args.resume
    if args.pretrained is not None:
        read_checkpoint(args.pretrained)  # a wrong path ends here, not after the data has loaded
        start = dict(type='scopevit.PretrainedBackboneHook', checkpoint=args.pretrained)
        cfg.custom_hooks = [*as_list(cfg.get('custom_hooks')), start]


def _averaging(cfg: Config) -> list[dict]:
    return [hook for hook in as_list(cfg.get('custom_hooks')) if type_name(hook) == 'EMAHook']


def _write_gamma(cfg: Config, hook: dict) -> None:
    """Write down in how many steps an average's momentum anneals, where its class has a number that goes without."""
    kind = hook.get('ema_type', 'ExponentialMovingAverage')
    if isinstance(kind, str):
        with HOOKS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            registry.import_from_location()  # mmpose's averages are among its hooks
        with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            kind = registry.get(kind)
    gamma = inspect.signature(kind).parameters.get('gamma') if kind is not None else None
    if gamma is not None and gamma.default is not inspect.Parameter.empty:
        hook.setdefault('gamma', gamma.default)


def _lengthen(settings: dict, keys: Sequence[str], factor: int) -> None:
    for key in keys:
        if settings.get(key) is not None:
            settings[key] = _times(settings[key], factor)


def _times(length: Any, factor: int) -> Any:
    return [_times(item, factor) for item in length] if isinstance(length, (list, tuple)) else length * factor
