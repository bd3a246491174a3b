"""What the backbones of this project share.

Shape legend: B batch, C channels, H W height and width of a map, N M numbers of tokens, h heads.
"""

from collections.abc import Iterator, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from scopevit.models.layers import DropPath


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless heads of equal width fill the channels."""
    if dim % num_heads:
        raise ValueError(f'embed_dims must be multiples of their num_heads, but {dim} is none of {num_heads}')


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Softmax attention, heads as contiguous channel groups. (B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def depthwise(channels: int, kernel_size: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=bias)


def to_map(tokens: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), a view."""
    return tokens.permute(0, 3, 1, 2)


def to_tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view."""
    return image.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Convolution and layer norm. (B, C_in, H, W) -> tokens (B, H', W', C)."""

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, kernel_size // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(x)))


class Block(nn.Module):
    """Pre-norm attention and MLP, each a residual branch with stochastic depth. (B, ..., C) -> (B, ..., C).

    ``shared`` in forward is what the attentions of several blocks have in common.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *shared: nn.Module) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), *shared))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_layer(module: nn.Module) -> None:
    """Linear: truncated normal, std 0.02. Convolution: normal over its fan-out. Biases: zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Pyramid(BaseModule):
    """Four stages of strides 4, 8, 16 and 32; stages after the last one in ``out_indices`` are not built.

    A subclass has ``arch_settings``, whose values are one for each stage, and builds a stage.

    Args:
        arch: A name of ``arch_settings``, or a dict with the same keys.
        in_channels: Channels of the input image.
        out_indices: Stages to return, ascending; negative ones count from the end.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        init_cfg: MMEngine initialisation, done after the default one.

    Attributes:
        feature_channels: Channels of each returned map.
        feature_strides: Stride of each returned map.

    Raises:
        ValueError: For an unknown or incomplete ``arch``, ``out_indices`` or a rate out of range.
    """

    arch_settings: dict

    def __init__(
        self,
        arch: str | dict,
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (3,),
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = self._parse_arch(arch)
        depths = self.arch['depths']
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be at least 0 and less than 1, but is {drop_path_rate}')
        indices = tuple(i + len(depths) if i < 0 else i for i in out_indices)
        if not indices or list(indices) != sorted(set(indices) & set(range(len(depths)))):
            raise ValueError(
                f'out_indices must be ascending, unique and below {len(depths)}, the number of stages, but is '
                f'{out_indices}'
            )
        self.out_indices = indices
        channels = self._stage_channels()
        self.feature_channels = tuple(channels[i] for i in indices)
        self.feature_strides = tuple(2 ** (i + 2) for i in indices)
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.stages = nn.ModuleList(self._build_stage(i, in_channels, rates) for i in range(indices[-1] + 1))
        self._reset_parameters()

    def forward(self, x: Tensor) -> tuple:
        """Image batch (B, in_channels, H, W) -> one map (B, C_i, ~H/2^(i+2), ~W/2^(i+2)) per out index."""
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                features.append(x.contiguous())  # mmcv's operators misread any other layout
        return tuple(features)

    def _reset_parameters(self) -> None:
        self.apply(init_layer)

    def _stage_channels(self) -> tuple:
        return tuple(self.arch['embed_dims'])

    def _build_stage(self, index: int, in_channels: int, rates: Iterator[float]) -> nn.Module:
        """Stage ``index``, (B, C_in, H, W) -> (B, C, H', W'); it takes its blocks' drop-path rates from ``rates``."""
        raise NotImplementedError

    @classmethod
    def _parse_arch(cls, arch: str | dict) -> dict:
        names = ', '.join(cls.arch_settings)
        if not isinstance(arch, dict):
            if arch not in cls.arch_settings:
                raise ValueError(f'unknown arch {arch!r} of {cls.__name__}: choose {names}, or give a dict')
            return cls.arch_settings[arch]
        keys = sorted(next(iter(cls.arch_settings.values())))
        lengths = {len(value) if isinstance(value, (list, tuple)) else None for value in arch.values()}
        if sorted(arch) != keys or len(lengths) != 1 or None in lengths:
            raise ValueError(
                f'arch dict of {cls.__name__}: it must have {", ".join(keys)}, each with one value for each stage, '
                f'but is {arch}'
            )
        return arch
