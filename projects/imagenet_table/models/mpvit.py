"""MPViT, a pyramid that looks at patches of several sizes on parallel paths.

Paper: "MPViT: Multi-Path Vision Transformer for Dense Prediction".
Shape legend: see layers.py; encoders work on tokens (B, H, W, C), d is the width of a head.
"""

from collections.abc import Iterator, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from scopevit.models.layers import Mlp

from .layers import Block, Pyramid, depthwise, to_map, to_tokens

NUM_HEADS = 8
HEADS_BY_KERNEL = {3: 2, 5: 3, 7: 3}  # in the order of the channels


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> list:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class Stem(nn.Sequential):
    """(B, C_in, H, W) -> (B, C, ~H/4, ~W/4)."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__(
            *conv_bn(in_channels, dim // 2, 3, stride=2),
            nn.Hardswish(),
            *conv_bn(dim // 2, dim, 3, stride=2),
            nn.Hardswish(),
        )


class PatchEmbed(nn.Sequential):
    """Depthwise separable convolution. (B, C, H, W) -> (B, C, ~H/stride, ~W/stride)."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__(depthwise(dim, stride=stride, bias=False), *conv_bn(dim, dim), nn.Hardswish())


class RelativePosition(nn.Module):
    """q * conv(v), with larger kernels for later heads. Twice (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.widths = [heads * dim // NUM_HEADS for heads in HEADS_BY_KERNEL.values()]
        self.convs = nn.ModuleList(depthwise(width, kernel) for width, kernel in zip(self.widths, HEADS_BY_KERNEL))

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        groups = to_map(v).split(self.widths, dim=1)
        return q * to_tokens(torch.cat([conv(group) for conv, group in zip(self.convs, groups)], dim=1))


class FactorisedAttention(nn.Module):
    """q (softmax(k)^T v) with the softmax over tokens, and relative position. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = (dim // NUM_HEADS) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, position: RelativePosition) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        # (B, H, W, C) -> (B, h, N, d)
        qh, kh, vh = (t.flatten(1, 2).unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        context = kh.softmax(dim=2).transpose(2, 3) @ vh
        attended = (qh @ context).transpose(1, 2).reshape(x.shape)
        return self.proj(self.scale * attended + position(q, v))


class Encoder(nn.Module):
    """The layers of one path; they share both position encodings. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, drop_paths: Sequence[float]) -> None:
        super().__init__()
        self.conditional = depthwise(dim)
        self.relative = RelativePosition(dim)
        self.layers = nn.ModuleList(
            Block(dim, FactorisedAttention(dim), Mlp(dim, int(dim * mlp_ratio)), rate) for rate in drop_paths
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = to_map(layer(to_tokens(x + self.conditional(x)), self.relative))
        return x


class LocalPath(nn.Module):
    """Residual bottleneck of convolutions. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *conv_bn(dim, dim),
            nn.Hardswish(),
            depthwise(dim, bias=False),
            nn.BatchNorm2d(dim),
            nn.Hardswish(),
            *conv_bn(dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class MPViTStage(nn.Module):
    """Patches of growing size, each embedding made from the one before. (B, C, H, W) -> (B, C_out, H', W')."""

    def __init__(
        self, dim: int, out_dim: int, num_paths: int, stride: int, mlp_ratio: float, drop_paths: Sequence[float]
    ) -> None:
        super().__init__()
        self.patch_embeds = nn.ModuleList(PatchEmbed(dim, 1 if i else stride) for i in range(num_paths))
        self.encoders = nn.ModuleList(Encoder(dim, mlp_ratio, drop_paths) for _ in range(num_paths))
        self.local = LocalPath(dim)
        self.aggregate = nn.Sequential(*conv_bn((num_paths + 1) * dim, out_dim), nn.Hardswish())

    def forward(self, x: Tensor) -> Tensor:
        paths = []
        for patch_embed, encoder in zip(self.patch_embeds, self.encoders):
            x = patch_embed(x)
            if not paths:
                paths.append(self.local(x))
            paths.append(encoder(x))
        return self.aggregate(torch.cat(paths, dim=1))


@MODELS.register_module()
class MPViT(Pyramid):
    """The MPViT backbone, of "MPViT: Multi-Path Vision Transformer for Dense Prediction".

    A stage's map has the width of the next stage. Any H, W >= 1 will do. Its options are those of
    :class:`Pyramid`; an arch's ``embed_dims`` are multiples of 8, the number of heads. The convolutions
    that encode positions, which several layers share, begin as PyTorch makes them: less loud than the others.

    Raises:
        ValueError: Also for a width that is no such multiple.
    """

    arch_settings = {
        'xsmall': dict(
            embed_dims=(64, 128, 192, 256), num_paths=(2, 3, 3, 3), depths=(1, 2, 4, 1), mlp_ratios=(4, 4, 4, 4)
        )
    }

    def _reset_parameters(self) -> None:
        super()._reset_parameters()
        for module in self.modules():
            if isinstance(module, Encoder):
                for conv in (module.conditional, *module.relative.convs):
                    conv.reset_parameters()

    def _stage_channels(self) -> tuple:
        dims = self.arch['embed_dims']
        return (*dims[1:], dims[-1])

    def _build_stage(self, index: int, in_channels: int, rates: Iterator[float]) -> nn.Module:
        dim, num_paths, depth, mlp_ratio = (
            self.arch[key][index] for key in ('embed_dims', 'num_paths', 'depths', 'mlp_ratios')
        )
        if dim % NUM_HEADS:
            raise ValueError(f'embed_dims of MPViT must be multiples of {NUM_HEADS}, its heads, but one is {dim}')
        drop_paths = [next(rates) for _ in range(depth)]
        stage = MPViTStage(dim, self._stage_channels()[index], num_paths, 2 if index else 1, mlp_ratio, drop_paths)
        return stage if index else nn.Sequential(Stem(in_channels, dim), stage)
