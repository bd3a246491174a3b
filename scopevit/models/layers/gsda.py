"""Global-scale dilated attention (GSDA), section "GSDA" of the ScopeViT paper.

Shape legend: B batch, C channels, H W height and width of the map, h heads, d = C/h head
dimension, g largest grid side. A group is a grid of tokens spread evenly over the whole
map: ``rows x cols`` of them, ``sh`` (``sw``) tokens apart, so there are G = sh*sw groups of
T = rows*cols tokens.
"""

from collections.abc import Callable, Hashable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import gpu
from .attention import attention
from .common import FusedLinear, Linear, is_exporting


def serves_any_size(H: int, W: int) -> bool:
    """Whether this call is traced into a graph in which the map's size is not fixed."""
    if is_exporting() or not torch.compiler.is_compiling():
        return is_exporting()
    from torch.fx.experimental import symbolic_shapes  # slow to import; the compiler has done so

    is_fixed = getattr(symbolic_shapes, 'has_static_value', lambda size: True)
    return not (is_fixed(H) and is_fixed(W))


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
        self.register_buffer('table', None)  # in the deploy form what the MLP gives for `offsets`
        self._kept, self._logs = {}, {}

    def forward(self, rows: int, cols: int, dtype: torch.dtype) -> Tensor:
        """Bias (h, T, T) of a ``rows x cols`` grid, tokens in row-major order."""
        return self._kept_in_evaluation((rows, cols, dtype), lambda: self.compute(rows, cols).to(dtype))

    def of_offsets(self) -> Tensor:
        """Bias ((2g-1)**2, h) of each offset, from which a kernel takes what it needs."""
        return self._kept_in_evaluation('offsets', self._table)

    def _kept_in_evaluation(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """In evaluation compute once for each ``key``, and again when a parameter has changed."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return compute()
        state = tuple((id(p), p.device, p.dtype, p.is_inference() or p._version) for p in self._sources())
        if self._kept.get('state') != state:
            self._kept = {'state': state}
        bias = self._kept.get(key)
        if bias is None:
            bias = compute().contiguous()
            if type(bias) is Tensor:  # not one of a mode that only pretends to compute
                self._kept[key] = bias
        return bias

    def train(self, mode: bool = True) -> 'RelativePositionBias':
        # Values written past autograd (`parameter.data`, as averaged weights are) change no version.
        self._kept = {}
        return super().train(mode)

    @torch.no_grad()
    def fold(self) -> None:
        """Keep the MLP's results in place of the MLP; for inference."""
        self.table = self._table()
        del self.fc1, self.act, self.drop, self.fc2

    def _sources(self) -> tuple:
        if self.table is not None:
            return (self.table,)
        return self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias

    def _table(self) -> Tensor:
        """Bias of each offset: ((2g-1)**2, h)."""
        if self.table is not None:
            return self.table
        x = self._coordinates(self.fc1.weight)
        # In float32 on GPUs under autocast, too: for so few numbers each cast is a launch more.
        is_cast = x.device.type == 'cuda' and torch.is_autocast_enabled()
        with torch.autocast('cuda', enabled=False) if is_cast else nullcontext():
            return self.fc2(self.drop(self.act(self.fc1(x))))

    def _coordinates(self, like: Tensor) -> Tensor:
        """Log-spaced ``offsets`` of the type and on the device of ``like``: ((2g-1)**2, 2)."""

        def compute() -> Tensor:
            t = self.offsets.to(like.dtype)
            return t.sign() * t.abs().log1p()

        if torch.compiler.is_compiling():  # where the compiler folds what is constant
            return compute()
        key = like.device, like.dtype
        if key not in self._logs:
            with torch.inference_mode(False):  # they may be part of a training later
                coordinates = compute()
            if type(coordinates) is not Tensor:  # of a mode that only pretends to compute
                return coordinates
            self._logs[key] = coordinates
        return self._logs[key]

    def compute(self, rows: int, cols: int) -> Tensor:
        index = self.index[:rows, :cols, :rows, :cols].reshape(rows * cols, rows * cols)
        # (T, T, h) -> (h, T, T)
        return self._table()[index].permute(2, 0, 1)


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
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.rel_pos = RelativePositionBias(grid_size, num_heads, drop=rel_pos_drop)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, *residual: Tensor) -> Tensor:
        if gpu.serves_attention(x, self.num_heads, self.grid_size):
            x = gpu.dilated_attention(self.qkv(x), self.rel_pos.of_offsets(), self.num_heads, self.grid_size)
        else:
            x = self._attend_any_size(x) if serves_any_size(*x.shape[1:3]) else self._attend(x)
        return self.proj(x, *residual)

    def _attend(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        h, d = self.num_heads, C // self.num_heads
        # Tokens of a group are sh rows and sw columns apart. Only the grid rows and columns
        # that hold a real token are computed: on a map lower than the grid there are H of them.
        sh, sw = -(-H // self.grid_size), -(-W // self.grid_size)
        rows, cols = -(-H // sh), -(-W // sw)
        padding = (0, 0, 0, cols * sw - W, 0, rows * sh - H)
        if any(padding):
            x = F.pad(x, padding)
        # One permutation puts a group's tokens side by side; the rest are views, but for padded maps.
        # (B, rows*sh, cols*sw, C) -> (B, G, T, C)
        x = x.reshape(B, rows, sh, cols, sw, C).permute(0, 2, 4, 1, 3, 5).reshape(B, sh * sw, rows * cols, C)
        qkv = self.qkv(x)
        bias = self.rel_pos(rows, cols, qkv.dtype)[None]  # (1, h, T, T)
        if any(padding):
            # (1, h, T, T) -> (G, h, T, T)
            bias = bias.masked_fill(self._padded_keys(H, W, rows, cols, sh, sw, x.device), float('-inf'))
        # Groups that share one bias are batch entries; groups with a bias of their own are
        # heads, so that the batch still shares it.
        heads = bias.shape[0] * h
        # (B, G, T, 3C) -> 3 x (B or B*G, heads, T, d)
        qkv = qkv.reshape(B, sh * sw, rows * cols, 3, h, d).permute(3, 0, 1, 4, 2, 5)
        q, k, v = qkv.reshape(3, -1, heads, rows * cols, d).unbind()
        x = attention(q, k, v, bias.reshape(1, heads, rows * cols, rows * cols))
        # (B or B*G, heads, T, d) -> (B, rows*sh, cols*sw, C)
        x = x.reshape(B, sh, sw, h, rows, cols, d).permute(0, 4, 1, 5, 2, 3, 6)
        x = x.reshape(B, rows * sh, cols * sw, C)
        return x[:, :H, :W] if any(padding) else x

    def _attend_any_size(self, x: Tensor) -> Tensor:
        """The same for an exported graph, which serves every size: always the whole grid, always a mask.

        Tokens are gathered instead of permuted, and no tensor has a dimension of G alone:
        where a dimension may be 1, torch.export makes a graph for that case or for all others.
        """
        B, H, W, C = x.shape
        g, h, d = self.grid_size, self.num_heads, C // self.num_heads
        T, sh, sw = g * g, (H + g - 1) // g, (W + g - 1) // g
        # Slots are in the order (G, h, T). Those beyond the map read its border; their keys are masked.
        slot = torch.arange(sh * sw * h * T, device=x.device)
        group, head, place = slot // (h * T), slot // T % h, slot % T
        first_row = group // sw
        first_col = group - first_row * sw  # ONNX has no remainder by a size
        row, col = place // g * sh + first_row, place % g * sw + first_col
        source = (row.clamp(max=H - 1) * W + col.clamp(max=W - 1)) * 3 * h + head
        # (B, H, W, 3C) -> 3 x (B*G*h, T, d)
        qkv = self.qkv(x).reshape(B, H * W * 3 * h, d)
        q, k, v = (qkv.index_select(1, source + part * h).reshape(-1, T, d) for part in range(3))
        key = torch.arange(T, device=x.device)
        padded = (key // g * sh + first_row[:, None] >= H) | (key % g * sw + first_col[:, None] >= W)
        bias = self.rel_pos(g, g, qkv.dtype).reshape(h * T, T).index_select(0, slot % (h * T))
        bias = bias.masked_fill(padded, float('-inf'))  # (G*h*T, T)
        logits = ((q * d**-0.5) @ k.transpose(1, 2)).reshape(B, -1, T) + bias
        x = (logits.softmax(dim=-1).reshape(-1, T, T) @ v).reshape(B, -1, d)
        # (B, G*h*T, d) -> (B, H, W, C)
        row, col = torch.arange(H, device=x.device)[:, None, None], torch.arange(W, device=x.device)[:, None]
        grid_row, grid_col = row // sh, col // sw
        group = (row - grid_row * sh) * sw + col - grid_col * sw
        slot = (group * h + torch.arange(h, device=x.device)) * T + grid_row * g + grid_col
        return x.index_select(1, slot.reshape(-1)).reshape(B, H, W, C)

    def fold(self) -> None:
        """For inference; :class:`RelativePositionBias` folds itself."""
        self.qkv = FusedLinear(self.qkv.weight)

    @staticmethod
    def _padded_keys(H: int, W: int, rows: int, cols: int, sh: int, sw: int, device: torch.device) -> Tensor:
        """Which keys are padding: bool (G, 1, 1, T)."""
        row = torch.arange(rows * sh, device=device).view(rows, sh).T  # (sh, rows)
        col = torch.arange(cols * sw, device=device).view(cols, sw).T  # (sw, cols)
        padded = (row >= H)[:, None, :, None] | (col >= W)[None, :, None, :]
        return padded.reshape(sh * sw, 1, 1, rows * cols)
