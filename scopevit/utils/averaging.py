"""The average of a training's checkpoints: uniform (SWA) or exponential, the newest weighing most."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checkpoint import (
    CheckpointError,
    StateDict,
    compare_weights,
    get_meta,
    read_checkpoint,
    select_weights,
    slim_meta,
)
from .config import changed_settings
from .errors import UserError

_NAME = re.compile(r'(epoch|iter)_(\d+)\.pth')  # as MMEngine's CheckpointHook writes them
_MOST_NAMED = 3


@dataclass
class Average:
    """An average of checkpoints.

    Attributes:
        weights: Of the types that the newest checkpoint has.
        meta: What the newest one says of its training, and under ``averaged`` the share of each file.
        shares: Each file and its share, the newest one last; they sum to 1.
    """

    weights: StateDict
    meta: dict
    shares: list[tuple[str, float]]


def last_checkpoints(work_dir: str, count: int) -> list[str]:
    """The newest checkpoints of a work dir by the numbers in their names, ``epoch_9.pth`` or ``iter_900.pth``.

    Raises:
        UserError: If there are fewer, or both kinds.
    """
    matches = [_NAME.fullmatch(os.path.basename(path)) for path in glob.glob(f'{glob.escape(work_dir)}/*.pth')]
    found = sorted((match[1], int(match[2]), match[0]) for match in matches if match)
    if len({kind for kind, _, _ in found}) > 1:
        raise UserError(f'{work_dir} has checkpoints by epochs and by iterations; name the files')
    if len(found) < count:
        raise UserError(
            f'{work_dir} has {len(found)} checkpoints (epoch_*.pth, iter_*.pth), not {count}: a training keeps as many '
            'as its config says, with --cfg-options default_hooks.checkpoint.max_keep_ckpts=-1 all'
        )
    return [os.path.join(work_dir, name) for _, _, name in found[-count:]]


def average_checkpoints(
    paths: Sequence[str], decay: float = 1.0, kind: str = 'auto', across_runs: bool = False
) -> Average:
    """Average the weights of checkpoints; one at a time is in memory.

    Floating-point weights, and with them batch norms' running means and variances, are summed in float64 and rounded
    once. What is no floating-point number, as a batch norm's count of batches, is the newest checkpoint's.

    Args:
        paths: Two or more, in any order: they say of which iteration they are. If one does not, the last is the newest.
        decay: How much a checkpoint weighs, compared with the next newer one; 1: all alike.
        kind: Which weights, see :func:`select_weights`.
        across_runs: Whether they may be of several trainings.

    Raises:
        UserError: If there are fewer than two, or one is given twice.
        CheckpointError: If one cannot be read, has weights that are not finite, or is of another model or run.
    """
    paths = _in_order(paths, across_runs)
    factors = [decay**age for age in reversed(range(len(paths)))]
    sums: StateDict = {}
    for path, factor in zip(paths, factors):
        checkpoint = read_checkpoint(path)
        weights = select_weights(checkpoint, kind, path)
        if sums:
            _require_same_model(sums, weights, paths[0], path)
        for name, value in weights.items():
            sums[name] = _add(sums.get(name), value, factor)
    total = sum(factors)
    shares = [(path, factor / total) for path, factor in zip(paths, factors)]
    meta = dict(slim_meta(checkpoint), averaged={os.path.basename(path): share for path, share in shares})
    return Average({name: _mean(sums[name], value, total) for name, value in weights.items()}, meta, shares)


def _is_averaged(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _add(before: Tensor | None, value: Tensor, factor: float) -> Tensor:
    """The sum so far in float64; of what is no floating-point number the value itself."""
    if not _is_averaged(value):
        return value
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    return wide * factor if before is None else before.add_(wide, alpha=factor)


def _mean(summed: Tensor, newest: Tensor, total: float) -> Tensor:
    # Clones: a view would drag the whole storage it looks into along.
    return (summed / total).to(newest.dtype) if _is_averaged(newest) else newest.clone()


def _in_order(paths: Sequence[str], across_runs: bool) -> list[str]:
    """The files, the newest one last."""
    paths = [str(path) for path in paths]
    if len(paths) < 2:
        raise UserError(f'an average is of two checkpoints or more, not of {paths[0]} alone')
    metas = [get_meta(read_checkpoint(path)) for path in paths]
    for i, path in enumerate(paths):
        same = [other for other in paths[:i] if os.path.realpath(other) == os.path.realpath(path)]
        if same:
            raise UserError(f'{path} is given twice')
        if not across_runs:
            _require_same_run(metas[0], metas[i], paths[0], path)
    steps: list[Any] = [meta.get('iter') for meta in metas]
    if not all(type(step) is int for step in steps):
        return paths
    if len(set(steps)) < len(steps) and not across_runs:
        step = next(step for step in steps if steps.count(step) > 1)
        twice = ' and '.join(path for path, other in zip(paths, steps) if other == step)
        raise UserError(f'{twice} are of one iteration ({step}) of one training: name one of them')
    return [path for _, path in sorted(zip(steps, paths), key=lambda pair: pair[0])]


def _require_same_run(first: dict, other: dict, path: str, other_path: str) -> None:
    differs = [] if first.get('seed') == other.get('seed') else [f'seed {first.get("seed")} and {other.get("seed")}']
    runs = [meta['run'].get('settings') if isinstance(meta.get('run'), dict) else None for meta in (first, other)]
    if all(isinstance(settings, dict) for settings in runs):
        differs += sorted(changed_settings(runs[0], runs[1]))
    if differs:
        more = f' and {len(differs) - _MOST_NAMED} more' if len(differs) > _MOST_NAMED else ''
        raise CheckpointError(
            f'{path} and {other_path} are of two trainings, which differ in {", ".join(differs[:_MOST_NAMED])}{more}; '
            'with --across-runs they are averaged all the same, which makes sense if both began with the same weights'
        )


def _require_same_model(first: StateDict, other: StateDict, path: str, other_path: str) -> None:
    match = compare_weights(first, other)
    if match.missing or match.unexpected or match.misshapen or first.keys() != other.keys():
        raise CheckpointError(f'{path} and {other_path} are of two models: {match}')
