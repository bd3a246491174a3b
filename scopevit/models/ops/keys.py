"""The limit of MSSA's keys, ``max_keys``, which the paper does not have.

Shape legend: as in layers/mssa.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .calls import is_exporting


def limit_keys(x: Tensor, max_keys: int) -> Tensor:
    """Average neighbours, in squares or nearly so, until at most so many are left. (B, C, H, W) -> (B, C, H', W')."""
    if any(isinstance(side, torch.SymInt) for side in x.shape[2:]) and is_exporting():
        raise ValueError('max_keys needs a graph for each image size: export with a fixed height and width')
    rows = cols = 1
    while -(-x.shape[2] // rows) * -(-x.shape[3] // cols) > max_keys:
        if rows < cols or (rows == cols and x.shape[2] > x.shape[3]):
            rows += 1
        else:
            cols += 1
    return F.avg_pool2d(x, (rows, cols), ceil_mode=True) if rows * cols > 1 else x
