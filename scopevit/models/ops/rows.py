"""What is computed row by row, channels of one token at a time: layer norm, and the closing of a residual branch."""

import torch
from torch import Tensor, nn

from . import gpu
from .calls import is_plain_layer


def layer_norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Call an nn.LayerNorm, or what a tool has put in its place; on GPUs by a kernel for narrow rows."""
    if gpu.serves_rows(x) and is_plain_layer(layer, nn.LayerNorm):
        return gpu.layer_norm(x, layer.weight, layer.bias, layer.eps)
    return layer(x)


def close_branch(x: Tensor, branch: Tensor, gamma: Tensor, keep: Tensor | None) -> Tensor:
    """x + branch * gamma, with the branches of single images dropped or made stronger.

    Args:
        x: (B, H, W, C).
        branch: (B, H, W, C).
        gamma: (C,).
        keep: (B,), a further factor of each image; None: 1.

    Returns:
        (B, H, W, C).
    """
    if gpu.serves_rows(x):
        return gpu.close_branch(x, branch, gamma, keep)
    scale = gamma if keep is None else gamma * keep.view(-1, 1, 1, 1)
    return torch.addcmul(x, branch, scale)
