"""GSDA's attention in the form that serves best: in groups, or by operators that take the map as it is.

Shape legend: as in layers/gsda.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import gpu
from .calls import is_exporting
from .linear import linear
from .positions import position_index


def dilated_attention(
    in_groups: Callable[..., Tensor], x: Tensor, qkv: nn.Module, table: Tensor, heads: int, grid: int
) -> Tensor:
    """``in_groups(x, qkv, table, heads, grid)``, but without groups on GPUs and in graphs for maps of any size.

    Args:
        in_groups: Attention inside each group of tokens, with a relative position bias.
        x: (B, H, W, C).
        qkv: Linear layer, C -> 3C: of each token query, key and value of all heads.
        table: ((2g-1)**2, h), the bias of each offset between query and key, row by row.
        heads: h.
        grid: g.

    Returns:
        (B, H, W, C).
    """
    if not (gpu.serves_attention(x, heads, grid) or _serves_any_size(x)):
        return in_groups(x, qkv, table, heads, grid)
    x = linear(qkv, x)
    by_kernel = gpu.serves_attention(x, 3 * heads, grid)  # which has the channels of 3h heads
    return (torch.ops.scopevit.dilated_attention if by_kernel else _for_any_size)(x, table, heads, grid)


def _serves_any_size(x: Tensor) -> bool:
    """Whether this call is traced into a graph in which the map's size is not fixed."""
    if is_exporting() or not torch.compiler.is_compiling():
        return is_exporting()
    from torch.fx.experimental import symbolic_shapes  # slow to import; the compiler has done so

    is_fixed = getattr(symbolic_shapes, 'has_static_value', lambda size: True)
    return not (is_fixed(x.shape[1]) and is_fixed(x.shape[2]))


def _for_any_size(qkv: Tensor, table: Tensor, heads: int, grid: int) -> Tensor:
    """For a graph that serves every size: always the whole grid, always a mask.

    Tokens are gathered instead of permuted, and no tensor has a dimension of G alone:
    where a dimension may be 1, torch.export makes a graph for that case or for all others.
    """
    B, H, W, C = qkv.shape
    g, h, d, device = grid, heads, C // 3 // heads, qkv.device
    T, sh, sw = g * g, (H + g - 1) // g, (W + g - 1) // g
    # Slots are in the order (G, h, T). Those beyond the map read its border; their keys are masked.
    slot = torch.arange(sh * sw * h * T, device=device)
    group, head, place = slot // (h * T), slot // T % h, slot % T
    first_row = group // sw
    first_col = group - first_row * sw  # ONNX has no remainder by a size
    row, col = place // g * sh + first_row, place % g * sw + first_col
    source = (row.clamp(max=H - 1) * W + col.clamp(max=W - 1)) * 3 * h + head
    # (B, H, W, 3C) -> 3 x (B*G*h, T, d)
    qkv = qkv.reshape(B, H * W * 3 * h, d)
    q, k, v = (qkv.index_select(1, source + part * h).reshape(-1, T, d) for part in range(3))
    key = torch.arange(T, device=device)
    padded = (key // g * sh + first_row[:, None] >= H) | (key % g * sw + first_col[:, None] >= W)
    # (T, T, h) -> (h*T, T) -> (G*h*T, T)
    bias = table[position_index(qkv, g, g, g)].to(qkv.dtype).permute(2, 0, 1).reshape(h * T, T)
    bias = bias.index_select(0, slot % (h * T)).masked_fill(padded, float('-inf'))
    logits = ((q * d**-0.5) @ k.transpose(1, 2)).reshape(B, -1, T) + bias
    x = (logits.softmax(dim=-1).reshape(-1, T, T) @ v).reshape(B, -1, d)
    # (B, G*h*T, d) -> (B, H, W, C)
    row, col = torch.arange(H, device=device)[:, None, None], torch.arange(W, device=device)[:, None]
    grid_row, grid_col = row // sh, col // sw
    group = (row - grid_row * sh) * sw + col - grid_col * sw
    slot = (group * h + torch.arange(h, device=device)) * T + grid_row * g + grid_col
    return x[:, slot].flatten(3)  # index_select would need a guard: that what it returns divides by W
