"""Multi-scale self-attention (MSSA), section "MSSA" of the ScopeViT paper.

Shape legend: B batch, C channels, H W height and width of the map, h heads, d = C/h head
dimension, N = H*W queries, M keys. Maps (B, C, H, W) are channels-last views of tokens
(B, H, W, C), so changing between them moves no data.

``linear(layer, x)`` is ``layer(x)``, and ``depthwise(layers, x)`` each of them on its part of the channels, computed
faster where there is a way.
"""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from ..ops.attention import attention
from ..ops.depthwise import depthwise
from ..ops.keys import limit_keys
from ..ops.linear import linear
from .common import ConvNormAct

fx.wrap('attention')  # a step of a symbolic trace, as is the next
fx.wrap('limit_keys')

SCOPES = (7, 5, 3)
"""Kernel sizes of the large, medium and small scope, in channel order."""


class ConditionalPositionalEncoding(nn.Module):
    """Inverted residual block (without squeeze-and-excitation) that tells tokens where they are.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        hidden = dim * expansion
        self.expand = ConvNormAct(dim, hidden, 1)
        self.depthwise = ConvNormAct(hidden, hidden, 3, groups=hidden)
        self.project = ConvNormAct(hidden, dim, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class MultiScaleSelfAttention(nn.Module):
    """Attention whose heads see keys and values embedded with different receptive fields.

    (B, H, W, C) -> (B, H, W, C), for every H, W >= 1.

    Args:
        dim: Channels C.
        scope_heads: Number of heads of the 7x7, 5x5 and 3x3 scope; their sum is h.
        kv_stride: Stride of the depthwise convolutions that embed keys and values.
        expansion: Expansion ratio of the conditional positional encoding.
        max_keys: Largest number of keys M, or None for as many as the stride leaves.
    """

    def __init__(
        self, dim: int, scope_heads: Sequence[int], kv_stride: int, expansion: int, max_keys: int | None = None
    ) -> None:
        super().__init__()
        self.num_heads = sum(scope_heads)
        self.max_keys = max_keys
        self.cpe: nn.Module = ConditionalPositionalEncoding(dim, expansion)
        self.query = nn.Linear(dim, dim, bias=False)
        self.scopes = nn.ModuleDict()
        for k, heads in zip(SCOPES, scope_heads):
            if heads > 0:
                width = heads * dim // self.num_heads
                # This padding gives every scope the same map size whatever H, W and the stride.
                padding = (kv_stride - 1 + k - 1) // 2
                self.scopes[f'{k}x{k}'] = nn.Conv2d(
                    width, width, k, stride=kv_stride, padding=padding, groups=width, bias=False
                )
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.proj: nn.Module = nn.Linear(dim, dim)

    def embed_scopes(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W'), each channel seen by the kernel of its head's scope."""
        # The first heads' channels through the 7x7 convolution, the next ones' through 5x5, the last ones' through 3x3;
        # in the deploy form all through one.
        x = depthwise(tuple(self.scopes.values()), x)
        return x if self.max_keys is None else limit_keys(x, self.max_keys)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        h, d = self.num_heads, C // self.num_heads
        # (B, H, W, C) -> (B, C, H, W)
        x = self.cpe(x.permute(0, 3, 1, 2))
        # (B, C, H, W) -> (B, H, W, C)
        q = linear(self.query, x.permute(0, 2, 3, 1))
        # (B, C, H', W') -> (B, H', W', 2C)
        kv = linear(self.key_value, self.embed_scopes(x).permute(0, 2, 3, 1))
        # (B, H, W, C) -> (B, h, N, d)
        q = q.reshape(B, H * W, h, d).transpose(1, 2)
        # (B, H', W', 2C) -> 2 x (B, h, M, d)
        k, v = kv.reshape(B, kv.shape[1] * kv.shape[2], 2, h, d).permute(2, 0, 3, 1, 4).unbind()
        x = attention(q, k, v)
        # (B, h, N, d) -> (B, H, W, C)
        return linear(self.proj, x.transpose(1, 2).reshape(B, H, W, C))
