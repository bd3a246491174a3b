"""mmcv's deformable convolutions and attention, by torchvision and PyTorch.

Functions bear the names of mmcv._ext. Like those they take tensors in a fixed order, some to be
written to, some for the kernels' own use, and sizes by name.

Shape legend: as in mmcv_ext.py.
"""

from collections.abc import Callable, Sequence

import torch
import torchvision
from torch import Tensor


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of ``function(*inputs)``, which is computed once more."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*inputs), inputs, grad_output)


# Deformable convolutions: each of the P points of the kernel has an offset (y, x), maybe a weight


def _places(sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Stride, padding and dilation, (y, x) each, by either of mmcv's sets of names."""
    if 'dH' in sizes:
        names = (('dH', 'dW'), ('padH', 'padW'), ('dilationH', 'dilationW'))
    else:
        names = (('stride_h', 'stride_w'), ('pad_h', 'pad_w'), ('dilation_h', 'dilation_w'))
    return {kind: (sizes[y], sizes[x]) for kind, (y, x) in zip(('stride', 'padding', 'dilation'), names)}


def _deform_conv_backward(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, grad_output: Tensor, sizes: dict[str, int]
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    weights = input.new_zeros(len(input), 1) if mask is None else mask
    tensors = [_at_least_float32(x) for x in (grad_output, input, weight, offset, weights)]
    stride, padding, dilation = _places(sizes).values()
    groups = (sizes['group'], sizes['deformable_group'])
    return torch.ops.torchvision._deform_conv2d_backward(
        *tensors, tensors[1].new_zeros(len(weight)), *stride, *padding, *dilation, *groups, mask is not None
    )


def _of_output_size(x: Tensor, output: Tensor) -> Tensor:
    """Offsets or masks as mmcv's kernels read them: as if they had the size of the output, whatever theirs is.

    DyHead relies on that: it convolves a map with the offsets of another one, twice its size.
    """
    height, width = output.shape[2:]
    return x.flatten(1)[:, : x.shape[1] * height * width].view(len(x), -1, height, width)


def deform_conv_forward(*tensors: Tensor, **sizes: int) -> None:
    """Convolution of maps (N, C, H, W) with points moved by ``offset`` (N, 2 * groups * P, ...), into ``output``."""
    input, weight, offset, output, *_ = tensors
    input, offset, weight = map(_at_least_float32, (input, offset, weight))
    output.copy_(torchvision.ops.deform_conv2d(input, offset, weight, **_places(sizes)))


def deform_conv_backward_input(*tensors: Tensor, **sizes: int) -> None:
    """Gradients of :func:`deform_conv_forward` for input and offset."""
    input, offset, grad_output, grad_input, grad_offset, weight, *_ = tensors
    grads = _deform_conv_backward(input, weight, offset, None, grad_output, sizes)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(*tensors: Tensor, scale: float, **sizes: int) -> None:
    """Add the gradient of :func:`deform_conv_forward` for the weight, times ``scale``."""
    input, offset, grad_output, grad_weight, *_ = tensors
    grads = _deform_conv_backward(input, grad_weight, offset, None, grad_output, sizes)
    grad_weight += scale * grads[1].to(grad_weight.dtype)


def modulated_deform_conv_forward(*tensors: Tensor, with_bias: bool, **sizes: int) -> None:
    """As :func:`deform_conv_forward`, with each point weighted by ``mask`` (N, groups * P, ...)."""
    input, weight, bias, _, offset, mask, output, _ = tensors
    offset, mask = _of_output_size(offset, output), _of_output_size(mask, output)
    input, offset, weight, bias, mask = map(_at_least_float32, (input, offset, weight, bias, mask))
    places = _places(sizes)
    output.copy_(torchvision.ops.deform_conv2d(input, offset, weight, bias if with_bias else None, mask=mask, **places))


def modulated_deform_conv_backward(*tensors: Tensor, with_bias: bool, **sizes: int) -> None:
    """Gradients of :func:`modulated_deform_conv_forward`."""
    input, weight, _, _, offset, mask, _, *results, grad_output = tensors
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask = results
    offset, mask = _of_output_size(offset, grad_output), _of_output_size(mask, grad_output)
    grads = _deform_conv_backward(input, weight, offset, mask, grad_output, sizes)
    for result, grad in ((grad_input, grads[0]), (grad_weight, grads[1])):
        result.copy_(grad)
    for result, grad in ((grad_offset, grads[2]), (grad_mask, grads[3])):
        _of_output_size(result, grad_output).copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def ms_deform_attn_forward(*tensors: Tensor, **_: int) -> Tensor:
    """Multi-scale deformable attention in mmcv's own PyTorch form, which it keeps for CPUs."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    value, shapes, _starts, locations, weights = tensors
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_backward(*tensors: Tensor, **_: int) -> None:
    """Gradients of :func:`ms_deform_attn_forward`."""
    value, shapes, starts, locations, weights, grad_output, *results = tensors
    grads = _gradients(
        lambda value, locations, weights: ms_deform_attn_forward(value, shapes, starts, locations, weights),
        [value, locations, weights],
        grad_output,
    )
    for result, grad in zip(results, grads):
        result.copy_(grad)
