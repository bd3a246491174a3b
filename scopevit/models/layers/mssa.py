"""Multi-scale self-attention (MSSA), section "MSSA" of the ScopeViT paper.

Shape legend: B batch, C channels, H W height and width of the map, h heads, d = C/h head
dimension, N = H*W queries, M keys. Maps (B, C, H, W) are channels-last views of tokens
(B, H, W, C), so changing between them moves no data.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention
from .common import FusedLinear, Linear, fold_batch_norm, is_exporting, linear

SCOPES = (7, 5, 3)
"""Kernel sizes of the large, medium and small scope, in channel order."""


class PointwiseConv(nn.Conv2d):
    """1x1 convolution, without bias, as a linear layer on tokens. (B, C, H, W) -> (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


class ConditionalPositionalEncoding(nn.Module):
    """Inverted residual block (without squeeze-and-excitation) that tells tokens where they are.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        hidden = dim * expansion
        self.expand = nn.Sequential(PointwiseConv(dim, hidden), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        self.project = nn.Sequential(PointwiseConv(hidden, dim), nn.BatchNorm2d(dim))
        self.is_folded = False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_folded:
            tokens = x.permute(0, 2, 3, 1)
            hidden = self.depthwise(self.expand(tokens).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return self.project(hidden, tokens).permute(0, 3, 1, 2)
        return x + self.project(self.depthwise(self.expand(x)))

    def fold(self) -> None:
        """Fold the batch norms into the convolutions before them; for inference."""
        for part in (self.expand, self.depthwise, self.project):
            fold_batch_norm(part, 0)
        expand, project = self.expand[0], self.project[0]
        self.expand = FusedLinear(expand.weight.flatten(1), expand.bias, 'relu')
        self.project = FusedLinear(project.weight.flatten(1), project.bias)
        self.is_folded = True


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
        head_dim = dim // self.num_heads
        self.cpe = ConditionalPositionalEncoding(dim, expansion)
        self.query = Linear(dim, dim, bias=False)
        # This padding gives every scope the same map size whatever H, W and the stride.
        self.scopes = nn.ModuleDict(
            {
                f'{k}x{k}': nn.Conv2d(
                    heads * head_dim,
                    heads * head_dim,
                    k,
                    stride=kv_stride,
                    padding=(kv_stride - 1 + k - 1) // 2,
                    groups=heads * head_dim,
                    bias=False,
                )
                for k, heads in zip(SCOPES, scope_heads)
                if heads > 0
            }
        )
        self.key_value = Linear(dim, 2 * dim, bias=False)
        self.proj = Linear(dim, dim)

    def embed_scopes(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W'), each channel seen by the kernel of its head's scope."""
        convs = self.scopes.values()
        parts = x.split([conv.in_channels for conv in convs], dim=1)
        parts = [conv(part) for conv, part in zip(convs, parts)]
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if self.max_keys is not None:
            if any(isinstance(side, torch.SymInt) for side in x.shape[2:]) and is_exporting():
                raise ValueError('max_keys needs a graph for each image size: export with a fixed height and width')
            # Neighbours are averaged, in squares or nearly so, until few enough are left.
            rows = cols = 1
            while -(-x.shape[2] // rows) * -(-x.shape[3] // cols) > self.max_keys:
                if rows < cols or (rows == cols and x.shape[2] > x.shape[3]):
                    rows += 1
                else:
                    cols += 1
            x = F.avg_pool2d(x, (rows, cols), ceil_mode=True) if rows * cols > 1 else x
        return x

    @torch.no_grad()
    def fold(self) -> None:
        """Merge the scopes into one convolution, smaller kernels framed with zeros; for inference.

        It multiplies more, but moves less memory, and takes half the time.
        """
        convs = list(self.scopes.values())
        kernel, dim = convs[0].kernel_size[0], self.query.in_features
        frames = [(kernel - conv.kernel_size[0]) // 2 for conv in convs]
        merged = nn.Conv2d(
            dim, dim, kernel, stride=convs[0].stride, padding=convs[0].padding, groups=dim, bias=False
        ).to(convs[0].weight)
        merged.weight.copy_(torch.cat([F.pad(conv.weight, (n, n, n, n)) for conv, n in zip(convs, frames)]))
        self.scopes = nn.ModuleDict({f'{kernel}x{kernel}': merged})
        self.query = FusedLinear(self.query.weight)
        self.key_value = FusedLinear(self.key_value.weight)

    def forward(self, x: Tensor, *residual: Tensor) -> Tensor:
        B, H, W, C = x.shape
        # (B, H, W, C) -> (B, C, H, W)
        x = self.cpe(x.permute(0, 3, 1, 2))
        # (B, C, H, W) -> (B, H, W, C)
        q = self.query(x.permute(0, 2, 3, 1))
        # (B, C, H', W') -> (B, H', W', 2C)
        kv = self.key_value(self.embed_scopes(x).permute(0, 2, 3, 1))
        # (B, H, W, C) -> (B, h, N, d)
        q = q.reshape(B, H * W, self.num_heads, -1).transpose(1, 2)
        # (B, H', W', 2C) -> 2 x (B, h, M, d)
        k, v = kv.reshape(B, -1, 2, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4).unbind()
        x = attention(q, k, v)
        # (B, h, N, d) -> (B, H, W, C)
        return self.proj(x.transpose(1, 2).reshape(B, H, W, C), *residual)
