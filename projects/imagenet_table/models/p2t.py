"""P2T, a pyramid whose attention pools keys and values at several sizes.

Paper: "P2T: Pyramid Pooling Transformer for Scene Understanding".
Shape legend: see layers.py; blocks work on tokens (B, H, W, C), T is the number of pooled tokens.
"""

from collections.abc import Iterator, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Block, PatchEmbed, Pyramid, attend, check_heads, depthwise, to_map, to_tokens


class PoolingAttention(nn.Module):
    """Every token attends to the map averaged over a few coarse grids. (B, H, W, C) -> (B, H, W, C).

    A grid of ratio r has round(H / r) x round(W / r) cells, halves rounded to the even number,
    and at least one.
    """

    def __init__(self, dim: int, num_heads: int, pool_ratios: Sequence[float]) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.pool_ratios = pool_ratios
        self.q = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pool_convs: nn.ModuleList) -> Tensor:
        """``pool_convs``: a depthwise convolution for each ratio, shared by the blocks of a stage."""
        image = to_map(x)
        pools = []
        for ratio, conv in zip(self.pool_ratios, pool_convs):
            pool = F.adaptive_avg_pool2d(image, [max(1, round(side / ratio)) for side in image.shape[2:]])
            pools.append((pool + conv(pool)).flatten(2))
        # (B, C, T) -> (B, T, C)
        pooled = self.norm(torch.cat(pools, dim=2).transpose(1, 2))
        k, v = self.kv(pooled).chunk(2, dim=-1)
        attended = attend(self.q(x).flatten(1, 2), k, v, self.num_heads)
        return self.proj(attended).view_as(x)


class ConvFeedForward(nn.Sequential):
    """Inverted bottleneck with a depthwise convolution. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__(
            nn.Conv2d(dim, hidden_dim, 1),
            nn.Hardswish(),
            depthwise(hidden_dim),
            nn.Hardswish(),
            nn.Conv2d(hidden_dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(super().forward(to_map(x)))


class P2TStage(nn.Module):
    """Patch embedding and blocks, no norm after them. (B, C_in, H, W) -> (B, C, H', W')."""

    def __init__(self, patch_embed: PatchEmbed, blocks: Sequence[Block], dim: int, num_pools: int) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.pool_convs = nn.ModuleList(depthwise(dim) for _ in range(num_pools))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x, self.pool_convs)
        return to_map(x)


@MODELS.register_module()
class P2T(Pyramid):
    """The P2T backbone, of "P2T: Pyramid Pooling Transformer for Scene Understanding".

    Maps are passed on as the last block leaves them, without a norm, and any H, W >= 1 will do.
    Its options are those of :class:`Pyramid`.
    """

    arch_settings = {
        'tiny': dict(
            embed_dims=(48, 96, 240, 384),
            num_heads=(1, 2, 5, 8),
            mlp_ratios=(8, 8, 4, 4),
            depths=(2, 2, 6, 3),
            pool_ratios=((12, 16, 20, 24), (6, 8, 10, 12), (3, 4, 5, 6), (1, 2, 3, 4)),
        )
    }

    def _build_stage(self, index: int, in_channels: int, rates: Iterator[float]) -> P2TStage:
        dims, depths, heads, mlp_ratios, pool_ratios = (
            self.arch[key] for key in ('embed_dims', 'depths', 'num_heads', 'mlp_ratios', 'pool_ratios')
        )
        dim = dims[index]
        patch_embed = PatchEmbed(dims[index - 1], dim, 3, 2) if index else PatchEmbed(in_channels, dim, 7, 4)
        blocks = []
        for _ in range(depths[index]):
            attn = PoolingAttention(dim, heads[index], pool_ratios[index])
            blocks.append(Block(dim, attn, ConvFeedForward(dim, int(dim * mlp_ratios[index])), next(rates)))
        return P2TStage(patch_embed, blocks, dim, len(pool_ratios[index]))
