"""A neck for classification that pools the maps of all stages, not the last one alone."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()  # of MMEngine's registry, so that configs of every toolbox find it by its name
class MultiScalePooling(BaseModule):
    """Maps (B, C_i, H_i, W_i) of several stages -> one vector for each image, in a tuple: ((B, out_channels),).

    Args:
        in_channels: C_i of each map, as the backbone's ``feature_channels`` has them.
        out_channels: Length of the vector, ``in_channels`` of the head.
        init_cfg: How weights begin, as MMEngine has it.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for channels in in_channels])
        self.projections = nn.ModuleList([nn.Linear(channels, out_channels) for channels in in_channels])

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        # (B, C_i, H_i, W_i) -> (B, C_i) -> (B, out_channels): scales differ in channels, so each has its own layers
        scales = [
            projection(norm(x.mean(dim=(2, 3)))) for x, norm, projection in zip(maps, self.norms, self.projections)
        ]
        return (torch.stack(scales).sum(dim=0),)
