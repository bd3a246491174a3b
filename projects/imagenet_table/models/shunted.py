"""Shunted Transformer, a pyramid whose heads see keys and values merged to two sizes.

Paper: "Shunted Self-Attention via Multi-Scale Token Aggregation".
Shape legend: see layers.py; blocks work on tokens (B, H, W, C).
"""

from collections.abc import Iterator, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Block, PatchEmbed, Pyramid, attend, check_heads, depthwise, to_map, to_tokens


class MergedKeys(nn.Module):
    """Keys and values of half the heads, each from a square of r x r tokens.

    (B, H, W, C) -> two of (B, M, C/2), M = ceil(H/r) * ceil(W/r). Maps are padded with zeros to a
    multiple of r, so that a square at the edge is not lost.
    """

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.merge = nn.Conv2d(dim, dim, size, stride=size)
        self.norm = nn.LayerNorm(dim)
        self.act = nn.GELU()
        self.kv = nn.Linear(dim, dim)
        self.local = depthwise(dim // 2)

    def forward(self, x: Tensor) -> tuple:
        height, width = x.shape[1:3]
        padded = F.pad(to_map(x), (0, -width % self.size, 0, -height % self.size))
        merged = self.act(self.norm(to_tokens(self.merge(padded))))
        k, v = self.kv(merged).chunk(2, dim=-1)
        v = v + to_tokens(self.local(to_map(v)))
        return k.flatten(1, 2), v.flatten(1, 2)


class ShuntedAttention(nn.Module):
    """The first half of the heads sees squares of r x r tokens, the other of r/2 x r/2. (B, H, W, C) -> the same."""

    def __init__(self, dim: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.coarse = MergedKeys(dim, reduction)
        self.fine = MergedKeys(dim, reduction // 2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.q(x).flatten(1, 2).chunk(2, dim=-1)
        halves = [
            attend(q, *keys(x), num_heads=self.num_heads // 2) for q, keys in zip(queries, (self.coarse, self.fine))
        ]
        return self.proj(torch.cat(halves, dim=-1)).view_as(x)


class FullAttention(nn.Module):
    """Attention between all tokens, and the values' neighbourhood beside it. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.local = depthwise(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, dim=-1)
        attended = attend(*(t.flatten(1, 2) for t in (self.q(x), k, v)), num_heads=self.num_heads)
        return self.proj(attended.view_as(x) + to_tokens(self.local(to_map(v))))


class DetailFeedForward(nn.Module):
    """MLP whose hidden layer sees its neighbourhood. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.local = depthwise(hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(self.act(x + to_tokens(self.local(to_map(x)))))


class ShuntedStem(nn.Module):
    """(B, C_in, H, W) -> tokens (B, ~H/4, ~W/4, C)."""

    def __init__(self, in_channels: int, dim: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden_dim, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(hidden_dim),
            nn.ReLU(inplace=True),
        )
        self.proj = nn.Conv2d(hidden_dim, dim, 2, stride=2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        height, width = x.shape[2:]
        return self.norm(to_tokens(self.proj(F.pad(x, (0, width % 2, 0, height % 2)))))


class ShuntedStage(nn.Module):
    """Patch embedding, blocks, layer norm. (B, C_in, H, W) -> (B, C, H', W')."""

    def __init__(self, patch_embed: nn.Module, blocks: Sequence[Block], dim: int) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.norm(self.blocks(self.patch_embed(x))))


@MODELS.register_module()
class Shunted(Pyramid):
    """The Shunted Transformer, of "Shunted Self-Attention via Multi-Scale Token Aggregation".

    Any H, W >= 1 will do. Its options are those of :class:`Pyramid`; an arch's ``reductions`` are
    even numbers, or 1 for attention between all tokens.

    Raises:
        ValueError: Also for a reduction that is neither, or an odd number of heads where keys are merged.
    """

    arch_settings = {
        'tiny': dict(
            embed_dims=(64, 128, 256, 512),
            num_heads=(2, 4, 8, 16),
            mlp_ratios=(8, 8, 4, 4),
            depths=(1, 2, 4, 1),
            reductions=(8, 4, 2, 1),
        )
    }

    def _build_stage(self, index: int, in_channels: int, rates: Iterator[float]) -> ShuntedStage:
        dims = self.arch['embed_dims']
        dim, heads, mlp_ratio, depth, reduction = (
            self.arch[key][index] for key in ('embed_dims', 'num_heads', 'mlp_ratios', 'depths', 'reductions')
        )
        patch_embed = PatchEmbed(dims[index - 1], dim, 3, 2) if index else ShuntedStem(in_channels, dim)
        if reduction != 1 and (reduction < 1 or reduction % 2 or heads % 2):
            raise ValueError(
                f'a reduction of Shunted must be 1, or even with an even number of heads, but is {reduction} with '
                f'{heads} heads in stage {index}'
            )
        blocks = []
        for _ in range(depth):
            attn = ShuntedAttention(dim, heads, reduction) if reduction > 1 else FullAttention(dim, heads)
            blocks.append(Block(dim, attn, DetailFeedForward(dim, int(dim * mlp_ratio)), next(rates)))
        return ShuntedStage(patch_embed, blocks, dim)
