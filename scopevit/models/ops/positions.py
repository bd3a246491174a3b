"""Where the tokens of GSDA's groups lie: sizes, offsets between them, and which of them are padding.

Shape legend: as in layers/gsda.py.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .calls import constant


def layout(H: int, W: int, grid: int) -> tuple[int, int, int, int]:
    """``rows, cols, sh, sw`` of a map's groups.

    Only the grid rows and columns that hold a real token are computed: on a map lower than the grid there are H.
    """
    sh, sw = -(-H // grid), -(-W // grid)
    return -(-H // sh), -(-W // sw), sh, sw


@constant
def log_offsets(x: Tensor, grid: int, dtype: torch.dtype) -> Tensor:
    """(dy, dx) of all offsets on a grid, each as sign(t) * ln(1 + |t|), row by row, where ``x`` is: ((2g-1)**2, 2)."""
    t = torch.arange(1 - grid, grid, device=x.device).to(dtype)
    t = t.sign() * t.abs().log1p()
    return torch.stack(torch.meshgrid(t, t, indexing='ij'), dim=-1).flatten(0, 1)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Keep the MLP of the position bias in the type of its weights where ``x`` is on a GPU, under autocast, too.

    For so few numbers each cast is a launch more.
    """
    is_cast = torch.is_autocast_enabled('cuda') and x.device.type == 'cuda'
    return torch.autocast('cuda', enabled=False) if is_cast else nullcontext()


@constant
def position_index(x: Tensor, rows: int, cols: int, grid: int) -> Tensor:
    """Which of the offsets is that of query i from key j in a group, row by row, where ``x`` is: (T, T)."""
    row, col = torch.arange(rows, device=x.device), torch.arange(cols, device=x.device)
    dy, dx = row[:, None] - row + grid - 1, col[:, None] - col + grid - 1
    # (rows, 1, rows, 1) + (cols, 1, cols) -> (rows, cols, rows, cols)
    index = dy[:, None, :, None] * (2 * grid - 1) + dx[:, None]
    return index.reshape(rows * cols, rows * cols)


def padded_keys(H: int, W: int, grid: int, device: torch.device) -> Tensor:
    """Which keys are padding: bool (G, 1, 1, T)."""
    rows, cols, sh, sw = layout(H, W, grid)
    row = torch.arange(rows * sh, device=device).view(rows, sh).T  # (sh, rows)
    col = torch.arange(cols * sw, device=device).view(cols, sw).T  # (sw, cols)
    padded = (row >= H)[:, None, :, None] | (col >= W)[None, :, None, :]
    return padded.reshape(sh * sw, 1, 1, rows * cols)
