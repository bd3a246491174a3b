"""Where in an image a network finds the evidence of what it predicts: Grad-CAM and LayerCAM of a ScopeViT's stages.

Grad-CAM (doi:10.1109/ICCV.2017.74) weights a map's channels by their gradients' mean, LayerCAM
(doi:10.1109/TIP.2021.3089943) each place of a channel by its own gradient where that is positive.
Shape legend: B batch, C channels, K classes or joints, H W height and width of a map.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..apis.inferencer import Classifier, Detector, PoseEstimator, Predictor, Segmenter
from ..apis.model import tensor_call
from ..apis.view import View
from ..utils.arguments import CAM_METHODS
from ..utils.errors import UserError, did_you_mean
from .attention_maps import calls_of, scopevit_of


@dataclass(frozen=True)
class Target:
    """A prediction whose evidence is looked for.

    Attributes:
        value: What the network computes of it, with its graph.
        title: For people.
        mask: Of a region, bool (H, W) in the network's input.
        box: Left, top, right and bottom in the image.
        point: Of a joint, row and column in the image.
    """

    value: Tensor
    title: str
    mask: np.ndarray | None = None
    box: np.ndarray | None = None
    point: np.ndarray | None = None


@dataclass(frozen=True)
class Choice:
    """Which prediction: of a class or joint, by name or number, and of a region or box the one at a pixel (x, y)."""

    name: str | None = None
    pixel: tuple[float, float] | None = None


def number_of(name: str, names: Sequence[str], count: int, kind: str) -> int:
    """The number of a class or joint.

    Raises:
        UserError: If there is none of this name or number.
    """
    if name in names:
        return list(names).index(name)
    # ImageNet's names list synonyms.
    short = [str(known).split(',')[0] for known in names]
    if name in short:
        return short.index(name)
    if name.isdigit() and int(name) < count:
        return int(name)
    hint = did_you_mean(name, short, most=3, cutoff=0.4) or f'; they are numbered from 0 to {count - 1}'
    raise UserError(f'the model has no {kind} {name}{hint}')


def _outputs(predictor: Predictor, view: View, what: str, ndim: int, fewest: int = 1) -> Tensor:
    """What the network computes of an image, (1, K, ...), if it is what the head of such a model gives."""
    outputs = tensor_call(predictor.model)(predictor.model, view.inputs)
    if not (isinstance(outputs, Tensor) and outputs.ndim == ndim and outputs.shape[1] >= fewest):
        raise UserError(f'the head of {type(predictor.model).__name__} gives no {what}')
    return outputs


def class_target(predictor: Predictor, view: View, choice: Choice) -> Target:
    """A class of an image: its logit. Without a choice the one predicted."""
    if choice.pixel:
        raise UserError('a pixel chooses a region or a box; this model finds the class of the whole image')
    (logits,) = _outputs(predictor, view, 'logits of classes', ndim=2)
    label = int(logits.argmax())
    if choice.name is not None:
        label = number_of(choice.name, predictor.classes, len(logits), 'class')
    return Target(logits[label], f'{_short(predictor, label)} {float(logits.softmax(0)[label]):.2f}')


def region_target(predictor: Predictor, view: View, choice: Choice) -> Target:
    """The pixels of a class, or those that belong together at a pixel: their mean logit.

    Without a choice the class that covers most.
    """
    logits = _outputs(predictor, view, 'logits of classes', ndim=4, fewest=2)
    height, width = view.size
    logits = nn.functional.interpolate(logits, view.inputs.shape[2:], mode='bilinear')[0, :, :height, :width]
    labels = logits.argmax(0).cpu().numpy()
    at = None if choice.pixel is None else tuple(view.in_input(*choice.pixel).round().astype(int))
    if choice.name is not None:
        label = number_of(choice.name, predictor.classes, len(logits), 'class')
    else:
        label = int(labels[at] if at is not None else np.bincount(labels.ravel()).argmax())
    mask = labels == label
    if at is not None:
        _, parts = cv2.connectedComponents(mask.astype(np.uint8))
        mask &= parts == (parts[at] or -1)  # 0 is what has another class
    if not mask.any():
        where = '' if choice.pixel is None else f' at pixel {choice.pixel[0]:g} {choice.pixel[1]:g}'
        raise UserError(f'the model finds no {_short(predictor, label)}{where} in this image; leave the class out')
    value = logits[label][torch.from_numpy(mask).to(logits.device)].mean()
    return Target(value, _short(predictor, label), mask=mask)


class _WithoutDetach(TorchFunctionMode):
    """``Tensor.detach`` leaves gradients."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))


def box_target(predictor: Predictor, view: View, choice: Choice) -> Target:
    """A box: its score. Without a choice the best one."""
    for mode in (nullcontext(), _WithoutDetach()):  # mmdet's dense heads detach what they choose boxes from
        with mode:
            (sample,) = predictor.model(**view.data, mode='predict')
        if 'pred_instances' not in sample:
            raise UserError(f'{type(predictor.model).__name__} gives no boxes')
        found = sample.pred_instances
        if found.scores.requires_grad:
            break
    if not len(found):
        raise UserError('the model finds nothing in this image')
    boxes, labels = found.bboxes.detach().cpu().numpy(), found.labels.cpu().numpy()
    fits = np.ones(len(boxes), bool)
    if choice.name is not None:
        count = max(len(predictor.classes), 1)
        fits &= labels == number_of(choice.name, predictor.classes, count, 'class')
    if choice.pixel is not None:
        view.in_input(*choice.pixel)
        fits &= ((boxes[:, :2] <= choice.pixel) & (boxes[:, 2:] > choice.pixel)).all(1)
    if not fits.any():
        raise UserError('the model finds no such box in this image; leave the class or the pixel out')
    if not found.scores.requires_grad:
        raise UserError(f'the scores of {type(predictor.model).__name__} have no gradients')
    scores = found.scores.detach().cpu().numpy()
    best = int(np.where(fits, scores, -np.inf).argmax())
    return Target(found.scores[best], f'{_short(predictor, labels[best])} {scores[best]:.2f}', box=boxes[best])


def joint_target(predictor: Predictor, view: View, choice: Choice) -> Target:
    """A joint: the highest value of its heatmap. Without a choice the one with the highest of all."""
    if choice.pixel:
        raise UserError('a pixel chooses a region or a box; choose a joint by its name')
    heatmaps = _outputs(predictor, view, 'heatmaps', ndim=4)
    # (1, K, H, W) -> (K, H*W)
    peaks, places = heatmaps[0].flatten(1).max(1)
    names: dict[int, str] = predictor.meta.get('keypoint_id2name') or {}
    listed = [names.get(k, str(k)) for k in range(len(peaks))]
    joint = int(peaks.argmax()) if choice.name is None else number_of(choice.name, listed, len(peaks), 'joint')
    place = np.array(divmod(int(places[joint]), heatmaps.shape[3]))
    step = np.array(view.inputs.shape[2:]) / np.array(heatmaps.shape[2:])
    point = view.in_image((place + 0.5) * step - 0.5)
    return Target(peaks[joint], f'{listed[joint]} {float(peaks[joint]):.2f}', point=point)


TARGETS: dict[type[Predictor], Callable[[Any, View, Choice], Target]] = {
    Classifier: class_target,
    Segmenter: region_target,
    Detector: box_target,
    PoseEstimator: joint_target,
}


def _short(predictor: Predictor, label: int) -> str:
    return predictor.class_name(label).split(',')[0]


def grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """(C, H, W) twice -> (H, W)."""
    return (maps * gradients.mean((1, 2), keepdim=True)).sum(0).relu()


def layer_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """(C, H, W) twice -> (H, W)."""
    return (maps * gradients.relu()).sum(0).relu()


METHODS = dict(zip(CAM_METHODS, (grad_cam, layer_cam)))


def target_of(predictor: Predictor, view: View, choice: Choice) -> Target:
    """The prediction of a model of any task that is chosen, or else its surest.

    Raises:
        UserError: If there is none.
    """
    return TARGETS[type(predictor)](predictor, view, choice)


def evidence(
    predictor: Predictor,
    view: View,
    choice: Choice,
    find: Callable[[Predictor, View, Choice], Target] = target_of,
) -> tuple[Target, dict[str, list[np.ndarray]]]:
    """What speaks for a prediction: by each method one map (H, W) of each stage, from the first on.

    Raises:
        UserError: If there is no such prediction, or its network has no ScopeViT or no gradients.
    """
    backbone = scopevit_of(predictor.model)
    view.inputs.requires_grad_()  # weights may be frozen
    with predictor.in_toolbox(), torch.enable_grad(), calls_of(backbone.stages) as calls:
        target = find(predictor, view, choice)
        maps = [output for *_, output in calls[-len(backbone.stages) :]]  # of the last run, if there were several
        gradients = torch.autograd.grad(target.value, maps)
    pairs = [(m[0].detach(), g[0]) for m, g in zip(maps, gradients)]
    return target, {name: [cam(*pair).cpu().numpy() for pair in pairs] for name, cam in METHODS.items()}


def peak(view: View, cam: np.ndarray, stage: int) -> np.ndarray:
    """Row and column of the image where the evidence of a stage, counted from 0, is highest."""
    place = np.array(np.unravel_index(cam.argmax(), cam.shape))
    return view.in_image(place * 2.0 ** (stage + 2))
