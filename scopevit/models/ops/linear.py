"""Linear layers, and 1x1 convolutions, which are the same: on CPUs, in float32, by oneDNN.

MKL, which nn.Linear uses there, shares products of tall, thin matrices badly among threads, and on AMD's
CPUs is half as fast.

Shape legend: B batch, C channels, H W height and width of a map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .calls import is_plain_call, is_plain_layer

HAS_ONEDNN = torch.backends.mkldnn.is_available()
HAS_FUSED_LINEAR = HAS_ONEDNN and hasattr(torch.ops.mkldnn, '_linear_pointwise')
FEWEST_IMAGES = 16
"""With a single thread PyTorch leaves a 1x1 convolution to oneDNN only if it is of so many images."""


def linear(layer: nn.Module, x: Tensor, activation: str = 'none', residual: Tensor | None = None) -> Tensor:
    """Call an nn.Linear, or what a tool has put in its place, on tokens. (B, H, W, C_in) -> (B, H, W, C_out).

    Args:
        layer: Called as it is unless an operator here computes the same.
        x: (B, H, W, C_in).
        activation: What to apply to the result: 'none', 'relu' or (exact) 'gelu'.
        residual: (B, H, W, C_out), added to the result. In inference on CPUs oneDNN does all in one pass,
            while the results are in the cache.
    """
    if not (is_plain_call(x) and is_plain_layer(layer, nn.Linear)):
        x = layer(x)
    elif not _onednn_fuses(x, layer.weight):
        x = product(x, layer.weight, layer.bias)
    elif residual is not None and activation == 'none':
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, layer.weight, layer.bias, 'add')
    else:
        x = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, activation, [], 'none')
        activation = 'none'
    if activation != 'none':
        x = getattr(F, activation)(x)
    return x if residual is None else residual + x


def convolution(layer: nn.Module, x: Tensor) -> Tensor:
    """Call an nn.Conv2d, or what a tool has put in its place; a 1x1 one as a linear layer.

    (B, C_in, H, W) -> (B, C_out, H', W').
    """
    if is_plain_call(x) and is_plain_layer(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1):
        # (B, C_in, H, W) -> (B, H, W, C_in) -> (B, C_out, H, W)
        return product(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
    return layer(x)


def relu(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Call an nn.ReLU on what a batch norm returned: in place, unless a hook sees it.

    (B, C, H, W) -> (B, C, H, W).
    """
    if is_plain_call(x) and is_plain_layer(layer, nn.ReLU) and is_plain_layer(norm, nn.BatchNorm2d, nn.SyncBatchNorm):
        return F.relu_(x)
    return layer(x)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The function of a linear layer. (B, H, W, C_in), (C_out, C_in), (C_out,) -> (B, H, W, C_out)."""
    if x.ndim != 4 or not _is_float32_on_cpu(x):
        return F.linear(x, weight, bias)
    B, H, W, C = x.shape
    if torch.get_num_threads() == 1 and B < FEWEST_IMAGES:
        if B * H * W % FEWEST_IMAGES or x.numel() == 0:
            return F.linear(x, weight, bias)
        x = x.reshape(FEWEST_IMAGES, 1, -1, C)  # for a linear layer it does not matter where an image ends
    x = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return x.permute(0, 2, 3, 1).reshape(B, H, W, weight.shape[0])


def _is_float32_on_cpu(x: Tensor) -> bool:
    """Whether oneDNN's operators serve; a compiler chooses itself."""
    return HAS_ONEDNN and x.dtype == torch.float32 and x.device.type == 'cpu' and not torch.compiler.is_compiling()


def _onednn_fuses(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's fused operators, which know no gradients, serve this call."""
    return (
        HAS_FUSED_LINEAR
        and _is_float32_on_cpu(x)
        and weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
    )
