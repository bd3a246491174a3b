"""Global-scale dilated attention (GSDA), section "GSDA" of the ScopeViT paper.

Shape legend: B batch, C channels, H W height and width of the map, h heads, d = C/h head
dimension, g largest grid side. A group is a grid of tokens spread evenly over the whole
map: ``rows x cols`` of them, ``sh`` (``sw``) tokens apart, so there are G = sh*sw groups of
T = rows*cols tokens.

``linear(layer, x)`` is ``layer(x)`` and ``dilated_attention(function, ...)`` is ``function(...)``, computed faster
where there is a way.
"""

import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..ops.attention import attention
from ..ops.dilated_attention import dilated_attention
from ..ops.linear import linear
from ..ops.positions import layout, log_offsets, padded_keys, position_index, without_autocast

fx.wrap('log_offsets')  # a step of a symbolic trace, as are the functions below


class RelativePositionBias(nn.Module):
    """Attention bias from log-spaced relative coordinates through a small MLP.

    The MLP sees (dy, dx), each as sign(t) * ln(1 + |t|) of the integer offset between query and key on the
    grid, and gives one bias per head. Nothing is kept between calls: parameters may change in ways that leave no
    mark on them, and the MLP costs 0.1 ms. The deploy form has its results in place of it.

    Args:
        grid_size: Largest grid side g.
        num_heads: Heads h.
        hidden_dim: Width of the MLP.
        drop: Dropout rate on the hidden layer while training.
    """

    def __init__(self, grid_size: int, num_heads: int, hidden_dim: int = 512, drop: float = 0.125) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.fc1 = nn.Linear(2, hidden_dim)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Bias of each offset, ((2g-1)**2, h), for tokens ``x``."""
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)
        coordinates = log_offsets(x, self.grid_size, dtype)
        with without_autocast(x):
            return self.fc2(self.drop(self.act(self.fc1(coordinates))))


class GlobalScaleDilatedAttention(nn.Module):
    """Attention inside groups of tokens that lie evenly spread over the whole map.

    (B, H, W, C) -> (B, H, W, C), for every H, W >= 1. Where a side does not divide by the
    grid, the map is padded at the bottom and right; padded keys get no attention.

    Args:
        dim: Channels C.
        num_heads: Heads h.
        grid_size: Largest grid side g; a group holds at most g*g tokens.
        rel_pos_drop: Dropout rate inside the relative position bias.
    """

    def __init__(self, dim: int, num_heads: int, grid_size: int, rel_pos_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.grid_size = grid_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.rel_pos = RelativePositionBias(grid_size, num_heads, drop=rel_pos_drop)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        table = self.rel_pos(x.detach())  # which asks x for nothing but its device and type
        x = dilated_attention(grouped_attention, x, self.qkv, table, self.num_heads, self.grid_size)
        return linear(self.proj, x)


def grouped_attention(x: Tensor, qkv: nn.Module, table: Tensor, heads: int, grid: int) -> Tensor:
    """Attention of each token of a map to those of its group. (B, H, W, C) -> (B, H, W, C)."""
    return attend_in_groups(linear(qkv, group(x, grid)), table, heads, grid, x.shape[1], x.shape[2])


@fx.wrap
def group(x: Tensor, grid: int) -> Tensor:
    """Put a group's tokens side by side, zeros where it reaches beyond the map. (B, H, W, C) -> (B, G, T, C)."""
    B, H, W, C = x.shape
    rows, cols, sh, sw = layout(H, W, grid)
    padding = (0, 0, 0, cols * sw - W, 0, rows * sh - H)
    if any(padding):
        x = F.pad(x, padding)
    # (B, rows*sh, cols*sw, C) -> (B, G, T, C)
    return x.reshape(B, rows, sh, cols, sw, C).permute(0, 2, 4, 1, 3, 5).reshape(B, sh * sw, rows * cols, C)


@fx.wrap
def attend_in_groups(qkv: Tensor, table: Tensor, heads: int, grid: int, H: int, W: int) -> Tensor:
    """Attention inside each group, and the groups' tokens back on the map. (B, G, T, 3C) -> (B, H, W, C)."""
    rows, cols, sh, sw = layout(H, W, grid)
    B, G, T, C = qkv.shape
    h, d = heads, C // 3 // heads
    # ((2g-1)**2, h) -> (T, T, h) -> (1, h, T, T)
    bias = table[position_index(qkv, rows, cols, grid)].to(qkv.dtype).permute(2, 0, 1)[None]
    # attention() takes one bias for the whole batch, but one for each head. Without padding all groups have the same
    # bias: groups are entries of the batch. With padding each group keeps keys of its own out: groups are heads.
    entries, heads = B * G, h
    is_padded = (rows * sh, cols * sw) != (H, W)
    if is_padded:
        # (1, h, T, T) -> (G, h, T, T) -> (1, G*h, T, T)
        bias = bias.masked_fill(padded_keys(H, W, grid, qkv.device), float('-inf')).reshape(1, G * h, T, T)
        entries, heads = B, G * h
    # (B, G, T, 3C) -> 3 x (B or B*G, heads, T, d)
    qkv = qkv.reshape(B, G, T, 3, h, d).permute(3, 0, 1, 4, 2, 5)
    q, k, v = qkv.reshape(3, entries, heads, T, d).unbind()
    x = attention(q, k, v, bias)
    # (B or B*G, heads, T, d) -> (B, rows*sh, cols*sw, C)
    x = x.reshape(B, sh, sw, h, rows, cols, d).permute(0, 4, 1, 5, 2, 3, 6).reshape(B, rows * sh, cols * sw, h * d)
    return x[:, :H, :W] if is_padded else x
