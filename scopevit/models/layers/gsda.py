"""Global-scale dilated attention (GSDA), section "GSDA" of the ScopeViT paper.

Shape legend: B batch, C channels, H W height and width of the map, h heads, d = C/h head
dimension, g largest grid side. A group is a grid of tokens spread evenly over the whole
map: ``rows x cols`` of them, ``sh`` (``sw``) tokens apart, so there are G = sh*sw groups of
T = rows*cols tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativePositionBias(nn.Module):
    """Attention bias from log-spaced relative coordinates through a small MLP.

    The MLP sees (dy, dx), each as sign(t) * ln(1 + |t|) of the integer offset between query
    and key on the grid, and gives one bias per head.

    Args:
        grid_size: Largest grid side g.
        num_heads: Heads h.
        hidden_dim: Width of the MLP.
        drop: Dropout rate on the hidden layer while training.
    """

    def __init__(self, grid_size: int, num_heads: int, hidden_dim: int = 512, drop: float = 0.125) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, hidden_dim)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, num_heads)

        # Integer buffers: they keep their exact value when the model changes its dtype.
        axis = torch.arange(1 - grid_size, grid_size)
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing='ij'), dim=-1)
        self.register_buffer('offsets', offsets.flatten(0, 1), persistent=False)
        # index[y1, x1, y2, x2] is the row of `offsets` for query (y1, x1) and key (y2, x2).
        position = torch.arange(grid_size)
        delta = position[:, None] - position[None, :] + grid_size - 1
        index = delta[:, None, :, None] * (2 * grid_size - 1) + delta[None, :, None, :]
        self.register_buffer('index', index, persistent=False)

    def forward(self, rows: int, cols: int) -> Tensor:
        """Bias (h, T, T) of a ``rows x cols`` grid, tokens in row-major order."""
        t = self.offsets.to(self.fc1.weight.dtype)
        table = self.fc2(self.drop(self.act(self.fc1(t.sign() * t.abs().log1p()))))
        index = self.index[:rows, :cols, :rows, :cols].reshape(rows * cols, rows * cols)
        # (T, T, h) -> (h, T, T)
        return table[index].permute(2, 0, 1)


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
        B, H, W, C = x.shape
        h, d = self.num_heads, C // self.num_heads
        # Tokens of a group are sh rows and sw columns apart. Only the grid rows and columns
        # that hold a real token are computed: on a map lower than the grid there are H of them.
        sh, sw = -(-H // self.grid_size), -(-W // self.grid_size)
        rows, cols = -(-H // sh), -(-W // sw)
        padding = (0, 0, 0, cols * sw - W, 0, rows * sh - H)

        qkv = F.pad(self.qkv(x), padding) if any(padding) else self.qkv(x)
        # (B, rows*sh, cols*sw, 3C) -> (3, B, sh, sw, h, rows, cols, d)
        qkv = qkv.reshape(B, rows, sh, cols, sw, 3, h, d).permute(5, 0, 2, 4, 6, 1, 3, 7)
        bias = self.rel_pos(rows, cols)[None]  # (1, h, T, T)
        if any(padding):
            # (1, h, T, T) -> (G, h, T, T)
            bias = bias.masked_fill(self._padded_keys(H, W, rows, cols, sh, sw, x.device), float('-inf'))
        # Groups that share one bias are batch entries; groups with a bias of their own are
        # heads, so that the batch still shares it.
        heads = bias.shape[0] * h
        q, k, v = qkv.reshape(3, -1, heads, rows * cols, d).unbind()
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.reshape(1, heads, rows * cols, rows * cols))
        # (B, sh, sw, h, rows, cols, d) -> (B, rows, sh, cols, sw, h, d)
        x = x.reshape(B, sh, sw, h, rows, cols, d).permute(0, 4, 1, 5, 2, 3, 6)
        return self.proj(x.reshape(B, rows * sh, cols * sw, C)[:, :H, :W])

    @staticmethod
    def _padded_keys(H: int, W: int, rows: int, cols: int, sh: int, sw: int, device: torch.device) -> Tensor:
        """Which keys are padding: bool (G, 1, 1, T)."""
        row = torch.arange(rows * sh, device=device).view(rows, sh).T  # (sh, rows)
        col = torch.arange(cols * sw, device=device).view(cols, sw).T  # (sw, cols)
        padded = (row >= H)[:, None, :, None] | (col >= W)[None, :, None, :]
        return padded.reshape(sh * sw, 1, 1, rows * cols)
