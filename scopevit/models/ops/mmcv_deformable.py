"""mmcv's deformable convolutions and attention, by torchvision and PyTorch; names and arguments are those of mmcv._ext.

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


def _deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    grad_output: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    group: int,
    deformable_group: int,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias; an empty mask stands for ones."""
    tensors = [_at_least_float32(x) for x in (grad_output, input, weight, offset, mask)]
    if not mask.numel():
        tensors[-1] = tensors[-1].new_zeros(len(input), 1)
    return torch.ops.torchvision._deform_conv2d_backward(
        *tensors,
        tensors[1].new_zeros(len(weight)),
        *stride,
        *padding,
        *dilation,
        group,
        deformable_group,
        bool(mask.numel()),
    )


def _of_output_size(x: Tensor, output: Tensor) -> Tensor:
    """Offsets or masks as mmcv's kernels read them: as if they had the size of the output, whatever theirs is.

    DyHead relies on that: it convolves a map with the offsets of another one, twice its size.
    """
    height, width = output.shape[2:]
    return x.flatten(1)[:, : x.shape[1] * height * width].view(len(x), -1, height, width)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolution of maps (N, C, H, W) with points moved by ``offset`` (N, 2 * groups * P, ...), into ``output``."""
    input, offset, weight = map(_at_least_float32, (input, offset, weight))
    result = torchvision.ops.deform_conv2d(
        input, offset, weight, stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW)
    )
    output.copy_(result)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of :func:`deform_conv_forward` for input and offset."""
    places = ((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    grads = _deform_conv_backward(input, weight, offset, input.new_empty(0), grad_output, *places)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add the gradient of :func:`deform_conv_forward` for the weight, times ``scale``."""
    places = ((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    grads = _deform_conv_backward(input, grad_weight, offset, input.new_empty(0), grad_output, *places)
    grad_weight += scale * grads[1].to(grad_weight.dtype)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """As :func:`deform_conv_forward`, with each point weighted by ``mask`` (N, groups * P, ...)."""
    offset, mask = _of_output_size(offset, output), _of_output_size(mask, output)
    input, offset, weight, bias, mask = map(_at_least_float32, (input, offset, weight, bias, mask))
    result = torchvision.ops.deform_conv2d(
        input,
        offset,
        weight,
        bias if with_bias else None,
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        mask=mask,
    )
    output.copy_(result)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of :func:`modulated_deform_conv_forward`."""
    places = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    offset, mask = _of_output_size(offset, grad_output), _of_output_size(mask, grad_output)
    grads = _deform_conv_backward(input, weight, offset, mask, grad_output, *places)
    for result, grad in ((grad_input, grads[0]), (grad_weight, grads[1])):
        result.copy_(grad)
    for result, grad in ((grad_offset, grads[2]), (grad_mask, grads[3])):
        _of_output_size(result, grad_output).copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention in mmcv's own PyTorch form, which it keeps for CPUs."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`."""

    def forward(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn_forward(
            value, value_spatial_shapes, value_level_start_index, locations, weights, im2col_step
        )

    grads = _gradients(forward, [value, sampling_locations, attention_weights], grad_output)
    for result, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        result.copy_(grad)
