"""Depthwise convolutions of parts of a map's channels: on GPUs by one kernel, elsewhere by PyTorch, part by part."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from . import gpu
from .calls import is_plain_layer


def depthwise(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Call each nn.Conv2d, or what a tool has put in its place, on its part of the channels. They agree on the size.

    (B, C, H, W) -> (B, C, H', W').
    """
    convs = [conv for conv in layers if is_plain_layer(conv, nn.Conv2d)] if gpu.serves(x) else []
    if len(convs) == len(layers) and all(_is_usual(conv, convs[0].stride) for conv in convs):
        weights = [conv.weight for conv in convs]
        if sum(map(len, weights)) == x.shape[1] and gpu.serves_depthwise(x, weights):
            # (B, C, H, W) -> (B, H, W, C) -> (B, H', W', C) -> (B, C, H', W'); under autocast of its type
            tokens = x.permute(0, 2, 3, 1).to(gpu.product_type(x))
            return torch.ops.scopevit.depthwise(tokens, weights, convs[0].stride[0]).permute(0, 3, 1, 2)
    parts = x.split([cast(nn.Conv2d, conv).in_channels for conv in layers], dim=1)
    parts = [conv(parts[i]) for i, conv in enumerate(layers)]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _is_usual(conv: nn.Conv2d, stride: tuple[int, ...]) -> bool:
    """Whether a convolution is of the kind that the operator computes."""
    kernel = conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.bias is None
        and conv.kernel_size == (kernel, kernel)
        and conv.stride == stride == (stride[0], stride[0])
        and conv.padding == ((stride[0] + kernel - 2) // 2,) * 2
        and conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
    )
