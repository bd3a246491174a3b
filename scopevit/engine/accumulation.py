"""Going on with a run that accumulates gradients over another number of iterations than before."""

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import IterBasedTrainLoop, Runner

from ..utils.config import as_list, first_value, type_name, walk
from ..utils.errors import UserError


def iterations_done(meta: dict, cfg: Config) -> int:
    """Where a training by iterations goes on: where the optimizer has done as many steps as at the checkpoint.

    Its length counts iterations, which are parts of a batch where gradients are accumulated. A run whose length has
    not changed goes on at the same iteration, however it accumulates.

    Args:
        meta: That of the checkpoint.
        cfg: Config of the run.

    Raises:
        UserError: If it has several optimizers, which need not have done their steps at the same iterations.
    """
    before = (meta.get('run') or {}).get('settings')
    if before is None or first_value(before.get('train_cfg'), 'max_iters') == first_value(cfg.train_cfg, 'max_iters'):
        return meta['iter']
    old, new = _accumulation(before), _accumulation(cfg)
    if old == new:
        return meta['iter']
    if len(old) != 1 or len(new) != 1:
        raise other_accumulation('several optimizers')
    return meta['iter'] // old[0] * new[0]


def other_accumulation(what: str) -> UserError:
    """The error that something cannot go on with another accumulation."""
    return UserError(
        f'--resume: accumulation has changed since the checkpoint, which {what} cannot go on with; resume with the '
        '--accumulate that the run was begun with'
    )


def adapt_to_accumulation(runner: Runner, meta: dict) -> None:
    """Recompute what a resumed run counts in iterations, if it accumulates over another number of them.

    Args:
        meta: That of the checkpoint, which says what its run was.
    """
    before = meta['run']['settings']
    old, new = _accumulation(before), _accumulation(runner.cfg)
    if old == new:
        return
    pending = meta['iter'] % max(old, default=1)
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.train_loop._iter = iterations_done(meta, runner.cfg)
    if runner.iter != meta['iter']:
        again = f'; {pending} of them, whose step was not complete, are done again' if pending else ''
        runner.logger.warning(
            f'Gradients are accumulated over {new[0]} iterations, at the checkpoint over {old[0]}: the training goes '
            f'on as iteration {runner.iter}, there it had done {meta["iter"]}{again}'
        )
        # A later checkpoint may have the name of an earlier one, which would be removed when its turn comes.
        kept = runner.message_hub.runtime_info.get('keep_ckpt_ids') or []
        runner.message_hub.update_info('keep_ckpt_ids', [number for number in kept if number < runner.iter])
    averages = [hook for hook in as_list(before.get('custom_hooks')) if 'EMAHook' in type_name(hook)]
    for average, hook in zip(averages, (hook for hook in runner.hooks if isinstance(hook, EMAHook))):
        steps, interval = hook.ema_model.steps, hook.ema_model.interval
        done = steps - pending if runner.iter != meta['iter'] else steps
        # Accumulation makes the interval longer, too.
        steps.copy_(done.clamp(min=0) * interval // _positive(average.get('interval')))


def _accumulation(settings: dict) -> list[int]:
    """Over how many iterations each optimizer of a config accumulates gradients."""
    wrappers = [part for part in walk(settings.get('optim_wrapper')) if 'optimizer' in part]
    return [_positive(wrapper.get('accumulative_counts')) for wrapper in wrappers]


def _positive(value: object) -> int:
    """A setting from a file, or 1, its default, if it is none."""
    return value if type(value) is int and value > 0 else 1
