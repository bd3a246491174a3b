"""The rules for a backbone's options, those of its arch excepted, and for its input."""

from collections.abc import Sequence

import torch
from torch import Tensor


def parse_out_indices(out_indices: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Out indices as non-negative numbers.

    Raises:
        ValueError: If they are not ascending, unique and of stages.
    """
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    is_whole = all(isinstance(i, int) and not isinstance(i, bool) for i in given)
    indices = tuple(i + num_stages if i < 0 else i for i in given) if is_whole else ()
    is_fit = indices and all(0 <= i < num_stages for i in indices) and list(indices) == sorted(set(indices))
    bounds = f'between {-num_stages} and {num_stages - 1} for {num_stages} stages'
    _require(is_fit, f'out_indices must be ascending, unique and {bounds}', out_indices)
    return indices


def require_options(out_indices: tuple[int, ...], frozen_stages: int, max_keys: int | None, **rates: float) -> None:
    """Make sure that the options of a backbone fit; the last of ``out_indices`` is its last stage.

    Raises:
        ValueError: For one that does not.
    """
    for name, rate in rates.items():
        _require(0 <= rate < 1, f'{name} must be at least 0 and less than 1', rate)
    is_limit = max_keys is None or (isinstance(max_keys, int) and max_keys >= 1)
    _require(is_limit, 'max_keys must be a whole number of at least 1 or None', max_keys)
    stages = out_indices[-1] + 1
    bounds = f'-1 and {stages}, the number of stages that out_indices={out_indices} builds'
    _require(-1 <= frozen_stages <= stages, f'frozen_stages must lie between {bounds}', frozen_stages)


def require_images(x: Tensor, channels: int, trains_deploy: bool) -> None:
    """Make sure that ``x`` is a batch of images (B, channels, H, W), and not there to train the deploy form.

    Raises:
        ValueError: If its shape is another one.
        RuntimeError: If it is to train the deploy form.
    """
    if trains_deploy:
        raise RuntimeError('the deploy form of ScopeViT is for inference; train the ordinary form (deploy=False)')
    is_batch = torch.jit.is_tracing() or (x.ndim == 4 and x.shape[1] == channels and 0 not in x.shape[2:])
    _require(is_batch, f'ScopeViT takes a batch of images (B, {channels}, H, W) with H, W >= 1', tuple(x.shape))


def _require(is_met: object, rule: str, value: object) -> None:
    if not is_met:
        raise ValueError(f'{rule}, but got {value}')
