"""Feature maps of other channels and strides than a pyramid has, for heads made for another backbone."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class LevelAdapter(BaseModule):
    """Output maps of the channels and strides that a neck or head was made for.

    ScopeViT's maps have strides 4, 8, 16 and 32. Where something cannot take them (a shared
    head with fixed channels, a heatmap head on one map of stride 4, four maps of stride 16 as
    of a plain transformer), each map it wants is a sum over the stage it stands for and all
    deeper ones, each through a 1x1 convolution: fine in place and deep in meaning, as in FPN.

    Args:
        in_channels: Channels of the pyramid, whose strides are 4, 8, 16, ...
        out_channels: Channels of each output map.
        out_strides: Stride of each output map.
        first_stages: For each of these the first stage that goes into it.
        neck: Config of a neck that takes these maps; its output is then ours.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        out_strides: Sequence[int],
        first_stages: Sequence[int],
        neck: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not len(out_channels) == len(out_strides) == len(first_stages):
            raise ValueError(
                'out_channels, out_strides and first_stages must be equally long, but are '
                f'{out_channels}, {out_strides} and {first_stages}'
            )
        self.out_strides = tuple(out_strides)
        self.first_stages = tuple(first_stages)
        self.laterals = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(channels, out, 1) for channels in in_channels[first:])
            for out, first in zip(out_channels, first_stages)
        )
        self.neck = None if neck is None else MMENGINE_MODELS.build(neck)

    def forward(self, features: Sequence[Tensor]) -> tuple:
        """Maps (B, in_channels[i], H_i, W_i) -> one map (B, out_channels[j], ~H/stride, ~W/stride) per output."""
        outputs = []
        for laterals, first, stride in zip(self.laterals, self.first_stages, self.out_strides):
            size = self._size(features, stride)
            outputs.append(sum(_resized(conv, x, size) for conv, x in zip(laterals.children(), features[first:])))
        return tuple(outputs) if self.neck is None else self.neck(tuple(outputs))

    @staticmethod
    def _size(features: Sequence[Tensor], stride: int) -> tuple:
        """Height and width at a stride: a stage's own where there is one, else rounded up."""
        for i, x in enumerate(features):
            if stride == 4 * 2**i:
                return tuple(x.shape[2:])
        nearest = features[0] if stride < 4 else features[-1]
        have = 4 if stride < 4 else 4 * 2 ** (len(features) - 1)
        return tuple(-(-n * have // stride) for n in nearest.shape[2:])


def _resized(conv: nn.Module, x: Tensor, size: tuple) -> Tensor:
    """Convolution and resizing, in whichever order runs on the smaller map."""
    if size[0] < x.shape[2]:
        return conv(F.adaptive_avg_pool2d(x, size))
    x = conv(x)
    return x if x.shape[2:] == size else F.interpolate(x, size, mode='bilinear')
