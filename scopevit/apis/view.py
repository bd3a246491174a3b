"""What a model sees of an image: its input, and where in the image that lies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from ..utils.errors import UserError
from ..utils.image import to_rgb
from .inferencer import PoseEstimator, Predictor


@dataclass(frozen=True)
class View:
    """One image, prepared for a model.

    Attributes:
        image: (H, W, 3), RGB.
        data: What the model's data preprocessor gives: ``inputs`` (1, C, H_in, W_in) and ``data_samples``.
        size: Height and width of the input without what a batch is padded with.
        scale: Rows and columns of the image that a row and a column of the input cover.
        offset: Row and column of the image in which the input begins.
    """

    image: np.ndarray
    data: dict[str, Any]
    size: tuple[int, int]
    scale: np.ndarray
    offset: np.ndarray

    @property
    def inputs(self) -> Tensor:
        return self.data['inputs']

    def in_image(self, points: np.ndarray) -> np.ndarray:
        """Rows and columns (..., 2) of the input as those of the image."""
        return points * self.scale + self.offset

    def in_input(self, x: float, y: float) -> np.ndarray:
        """A pixel of the image as row and column of the input.

        Raises:
            UserError: If it lies outside the image, or where the model does not see it.
        """
        height, width = self.image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f'pixel {x:g} {y:g} lies outside the image, which is {width} wide and {height} high')
        point = (np.array([y, x]) - self.offset) / self.scale
        if not ((point > -1) & (point < self.size)).all():
            (top, left), (bottom, right) = self.in_image(np.array([[0, 0], self.size])).round().astype(int)
            raise UserError(
                f'the model does not see pixel {x:g} {y:g}: of this image it sees x from {max(left, 0)} to '
                f'{min(right, width) - 1} and y from {max(top, 0)} to {min(bottom, height) - 1}'
            )
        return point.clip(0, np.array(self.size) - 1)


def view(predictor: Predictor, image: np.ndarray, box: tuple[float, ...] | None = None) -> View:
    """Prepare an image (H, W, C) or (H, W), BGR, as the model's tests do.

    Args:
        box: Of models that find the joints of one person: x, y, width and height of that person; None: all.

    Raises:
        UserError: If the model takes no such box, or it is empty.
    """
    height, width = image.shape[:2]
    info = {}
    if isinstance(predictor, PoseEstimator):
        info = dict(predictor.meta)
        if predictor.needs_boxes:
            x, y, w, h = box or (0, 0, width, height)
            if not (w > 0 and h > 0 and x < width and y < height and x + w > 0 and y + h > 0):
                raise UserError(f'box {x:g} {y:g} {w:g} {h:g} holds nothing of the image, which is {width}x{height}')
            info = predictor.info(np.array([x, y, x + w, y + h], np.float32))
    elif box:
        raise UserError('a box is for pose models that find the joints of one person')
    with predictor.in_toolbox(), torch.no_grad():
        item = predictor.prepare(image, dict(info))
        scale, offset = _place(predictor.prepare(_ramps(height, width), dict(info))['inputs'], height, width)
        data = predictor.model.data_preprocessor(pseudo_collate([item]), False)
    return View(to_rgb(image), data, tuple(item['inputs'].shape[-2:]), scale, offset)


def view_of(predictor: Predictor, path: str, box: tuple[float, ...] | None = None) -> View:
    """:func:`view` of an image file.

    Raises:
        UserError: If it cannot be read, too.
    """
    try:
        image = predictor.read(path)
    except UserError as error:
        raise UserError(f'{path} {error}') from error
    return view(predictor, image, box)


def _ramps(height: int, width: int) -> np.ndarray:
    """An image whose channels grow with the row and with the column; the third is full."""
    rows, columns = np.linspace(0, 255, height), np.linspace(0, 255, width)
    ramps = np.stack([*np.meshgrid(rows, columns, indexing='ij'), np.full((height, width), 255.0)], axis=-1)
    return ramps.round().astype(np.uint8)


def _place(ramps: object, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where an input lies in its image, by what a pipeline made of :func:`_ramps`; turned inputs are not foreseen."""
    if not isinstance(ramps, Tensor):
        raise UserError('the pipeline of the test_dataloader gives several inputs for an image')
    rows, columns, full = ramps.double().numpy()
    inside = full > 127  # else it is padding, which takes its part in what lies beside it
    found = []
    for values, side, axis in ((rows, height, 0), (columns, width, 1)):
        place = np.nonzero(inside)[axis]
        steps = values[inside] / full[inside] * (side - 1)
        covered = np.ptp(place) + 1
        is_line = side > 1 and covered > 1
        found.append(np.polyfit(place, steps, 1) if is_line else (side / covered, steps.mean()))
    return np.array(found)[:, 0], np.array(found)[:, 1]
