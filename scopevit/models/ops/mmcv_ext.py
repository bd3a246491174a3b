"""mmcv's operators without compiling mmcv: those that the toolboxes call, by torchvision and PyTorch.

This module is imported as ``mmcv._ext``, see mmcv_finder.py, and has the names and arguments of the
functions that mmcv's Python code looks for there. Most write into tensors that they are given. They
run on CPUs and GPUs alike and in any precision; what torchvision computes in float32 alone is
computed so. Whatever is not here raises :class:`MissingOperator` when it is called.

Shape legend: N images or boxes, C channels or classes, K regions, P points of a kernel.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from scopevit.models.ops import MissingOperator
from scopevit.models.ops.mmcv_deformable import (  # noqa: F401
    _at_least_float32,
    _gradients,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)

try:
    import torchvision
except RuntimeError as error:  # its compiled part is of another torch
    raise ImportError(
        f'torchvision cannot be used with torch {torch.__version__}: python -m scopevit doctor'
    ) from error


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: object, **options: object) -> NoReturn:
        raise MissingOperator(name)

    return missing


# Boxes (N, 4): left, top, right, bottom


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes to keep, best first; with ``offset`` 1 a box ends beyond its last pixel."""
    boxes, scores = _at_least_float32(boxes), _at_least_float32(scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # Among equal scores mmcv has the order of torch's sort, torchvision one of its own.
    order = scores.argsort(descending=True)
    ranks = torch.arange(len(order), 0, -1, device=scores.device, dtype=boxes.dtype)
    return order[torchvision.ops.nms(boxes[order], ranks, iou_threshold)]


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, **how: int
) -> Tensor:
    """Lower the scores of boxes that overlap better ones; boxes and scores go into ``dets`` (N, 5), indices come back.

    ``method`` is 0 to remove them, 1 to lower scores by the overlap, 2 to do so by a Gaussian of it; ``offset`` as
    for :func:`nms`.
    """
    method, offset = how['method'], how['offset']
    left = torch.arange(len(boxes))
    boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    scores = scores.clone()
    kept: list[Tensor] = []
    while len(left):
        best = scores[left].argmax()
        index = left[best]
        dets[len(kept), :4] = boxes[index] - boxes.new_tensor([0, 0, offset, offset])
        dets[len(kept), 4] = scores[index]
        kept.append(index)
        left = torch.cat([left[:best], left[best + 1 :]])
        overlap = torchvision.ops.box_iou(boxes[index, None], boxes[left])[0]
        if method == 2:
            factor = torch.exp(-(overlap**2) / sigma)
        else:
            factor = torch.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0.0, 1.0)
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """For each box of ``dets`` (N, 5: box and score) that is kept, best first, its index and those it suppresses."""
    left = dets[:, 4].argsort(descending=True)
    groups = []
    while len(left):
        overlap = torchvision.ops.box_iou(dets[left[:1], :4], dets[left[1:], :4])[0]
        suppressed = F.pad(overlap >= iou_threshold, (1, 0), value=True)  # itself
        groups.append(left[suppressed].tolist())
        left = left[~suppressed]
    return groups


# Regions (K, 5): image, left, top, right, bottom; of maps (N, C, H, W)


def _roi_align(maps: Tensor, rois: Tensor, sizes: dict[str, Any]) -> Tensor:
    size = (sizes['aligned_height'], sizes['aligned_width'])
    return torchvision.ops.roi_align(
        maps, rois, size, sizes['spatial_scale'], sizes['sampling_ratio'], sizes['aligned']
    )


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **sizes: Any
) -> None:
    """Regions of maps, averaged over a grid of bilinear samples, into ``output`` (K, C, height, width)."""
    if sizes['pool_mode'] == 0:
        raise MissingOperator("roi_align with pool_mode='max'")
    output.copy_(_roi_align(_at_least_float32(input), _at_least_float32(rois), sizes))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, **sizes: Any
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``."""
    rois = _at_least_float32(rois)
    # The gradient does not depend on the maps' values. torchvision's function, unlike the operator
    # below it, knows a deterministic way for GPUs.
    maps = _at_least_float32(torch.zeros_like(grad_input))
    (grad,) = _gradients(lambda x: _roi_align(x, rois, sizes), [maps], _at_least_float32(grad_output))
    grad_input += grad.to(grad_input.dtype)


# Focal losses of logits (N, C) and classes (N,), where C or a negative number stands for the background


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _class_weights(weight: Tensor, target: Tensor) -> Tensor:
    """Per sample (N,); an empty ``weight`` stands for ones."""
    return weight[target.clamp(0, len(weight) - 1)] if weight.numel() else weight.new_ones(len(target))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Loss of each sample and class into ``output`` (N, C)."""
    p = _at_least_float32(input).sigmoid()
    is_class = target[:, None] == torch.arange(input.shape[1], device=input.device)
    loss = -torch.where(is_class, alpha * (1 - p) ** gamma * _log(p), (1 - alpha) * p**gamma * _log(1 - p))
    output.copy_(loss * _class_weights(weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of each element of :func:`sigmoid_focal_loss_forward` by its logit."""
    p = _at_least_float32(input).sigmoid()
    is_class = target[:, None] == torch.arange(input.shape[1], device=input.device)
    of_class = alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
    of_others = (1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
    grad_input.copy_(-torch.where(is_class, of_class, of_others) * _class_weights(weight, target)[:, None])


# Convolution at chosen pixels alone, of one image


def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, **sizes: int) -> None:
    """What the kernel sees at each chosen pixel, into ``col`` (C * P, pixels)."""
    kernel, padding = (sizes['kernel_h'], sizes['kernel_w']), (sizes['pad_h'], sizes['pad_w'])
    columns = F.unfold(im, kernel, padding=padding)[0]
    width = im.shape[3] + 2 * padding[1] - kernel[1] + 1
    col.copy_(columns[:, mask_h_idx * width + mask_w_idx])


def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, **_: int) -> None:
    """Put values (channels, pixels) at the chosen pixels of ``im``."""
    im[0, :, mask_h_idx, mask_w_idx] = col


# PSANet's attention: each pixel of a map (H, W) has a mask of weights, laid over the map around it


def _places_in_mask(sizes: dict[str, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where in the mask of each pixel (rows) each pixel (columns) lies, (H * W, H * W), and whether it does."""
    y, x = (torch.arange(sizes[f'{side}_feature'], device=device) for side in 'hw')
    rows = (y[None, :] - y[:, None] + sizes['half_h_mask'])[:, None, :, None]  # (H, 1, H, 1)
    columns = (x[None, :] - x[:, None] + sizes['half_w_mask'])[None, :, None, :]  # (1, W, 1, W)
    inside = (rows >= 0) & (rows < sizes['h_mask']) & (columns >= 0) & (columns < sizes['w_mask'])
    places = torch.where(inside, rows * sizes['w_mask'] + columns, 0)
    return places.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, **sizes: int) -> None:
    """Masks (N, mask, H, W) laid over the map, into ``output`` (N, H * W, H, W): 1 distributes, 0 collects."""
    places, inside = _places_in_mask(sizes, input.device)
    masks = input.flatten(2).transpose(1, 2)  # (N, H * W, mask)
    weights = masks.gather(2, places.expand(num_, -1, -1)) * inside
    output.copy_((weights if psa_type == 1 else weights.transpose(1, 2)).view_as(output))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, **sizes: int) -> None:
    """Gradient of :func:`psamask_forward`."""
    places, inside = _places_in_mask(sizes, grad_output.device)
    weights = grad_output.flatten(2)
    weights = (weights if psa_type == 1 else weights.transpose(1, 2)) * inside
    masks = torch.zeros_like(grad_input).flatten(2).transpose(1, 2).contiguous()
    masks.scatter_add_(2, places.expand(num_, -1, -1), weights)
    grad_input.copy_(masks.transpose(1, 2).view_as(grad_input))
