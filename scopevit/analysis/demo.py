"""A model, tried on one image after another: what tools/demo.py shows in the browser."""

import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..apis.inferencer import BoxFinder, PoseEstimator, Predictor
from ..apis.people import whole_image
from ..apis.view import view
from ..utils.errors import UserError, one_line
from .attention_maps import attention_layers, head_distances, scopevit_of
from .overlays import draw_scopes

LONGEST = 2048
"""Pixels of an image's longer side; larger ones are shrunk to it, as the networks' inputs are smaller anyway."""
CLEAR = 512
"""Pixels of a figure's longer side; smaller ones are enlarged."""


HOW_TO_READ = (
    'Click the prediction to choose another place. Squares are the keys of the scopes of MSSA, dots those of GSDA, the '
    'brighter the larger their weight. Below each panel: the mean distance of its heads, and how many times an equal '
    'share its brightest key has.'
)
"""The figure of the scopes."""


@dataclass(frozen=True)
class Answer:
    """What a model says of an image, to be looked at.

    Attributes:
        figure: The image with the prediction drawn, (H, W, 3), RGB.
        columns, rows: The prediction as a table.
        summary: What was found in how long, in one line.
    """

    figure: np.ndarray
    columns: list[str]
    rows: list[list[Any]]
    summary: str


class Demo:
    """Predictions and the scopes' attention for image files, with a model of any task.

    Args:
        predictor: The model.
        find_boxes: Where the people are, for pose models that need to know it (default: the whole image is one).
    """

    def __init__(self, predictor: Predictor, find_boxes: BoxFinder | None = None) -> None:
        self.predictor = predictor
        if isinstance(predictor, PoseEstimator) and predictor.needs_boxes:
            predictor.find_boxes = find_boxes or whole_image
        elif find_boxes:
            raise UserError('a detector is for pose models that find the joints of one person; this model needs none')

    @property
    def why_no_scopes(self) -> str:
        """Why the attention of this model cannot be drawn; empty if it can."""
        try:
            scopevit_of(self.predictor.model)
        except UserError as error:
            return str(error)
        return ''

    def read(self, path: str) -> tuple[np.ndarray, str]:
        """An image as the model takes it, shrunk if it is very large, and a remark on that.

        Raises:
            UserError: If it cannot be read.
        """
        try:
            image = self.predictor.read(path)
        except UserError as error:
            raise UserError(f'This file {error}.') from error
        height, width = image.shape[:2]
        if max(height, width) <= LONGEST:
            return image, ''
        size = [max(round(side * LONGEST / max(height, width)), 1) for side in (width, height)]
        remark = f'shrunk from {width} x {height} to {size[0]} x {size[1]} pixels, in which the table is'
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), remark

    def predict(self, path: str, score_thr: float | None = None) -> Answer:
        """What the model says of an image.

        Args:
            score_thr: Instead of the predictor's.

        Raises:
            UserError: If the image cannot be read, or nothing of it is left at the size that the network takes.
        """
        image, remark = self.read(path)
        if score_thr is not None:
            self.predictor.score_thr = score_thr
        start = time.perf_counter()
        try:
            prediction = self.predictor(image, path)
        except cv2.error as error:  # a line of an image, of which the pipeline would leave nothing
            size = f'{image.shape[1]} x {image.shape[0]}'
            raise UserError(f'An image of {size} pixels cannot be predicted: {one_line(error)}.') from error
        seconds = time.perf_counter() - start
        columns, rows, found = tabulate(prediction.data)
        took = f'{seconds:.2g} s on {self.predictor.device}, drawing included'
        summary = '; '.join(part for part in (found, took, remark) if part)
        return Answer(_enlarge(prediction.figure[..., ::-1]), columns, rows, summary)

    def scopes(self, path: str, at: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
        """What the scopes attend to from a place in an image: a figure (H, W, 3), RGB.

        Args:
            at: The place, as shares of the image's width and height.

        Raises:
            UserError: If the image cannot be read, the model does not see the place, or its backbone is no ScopeViT.
        """
        backbone = scopevit_of(self.predictor.model)
        image, _ = self.read(path)
        sides = np.array(image.shape[1::-1])
        x, y = np.minimum(np.floor(np.array(at) * sides), sides - 1).tolist()
        seen = view(self.predictor, image, self._person_at(image, path, x, y))
        seen.in_input(x, y)  # before the work
        layers = attention_layers(backbone, seen.inputs)
        return _pixels(draw_scopes(seen, layers, head_distances(layers, seen), (x, y)))

    def _person_at(self, image: np.ndarray, path: str, x: float, y: float) -> tuple[float, ...] | None:
        """The box (x, y, width, height) of the most certain person there; None: of no one, or a model without boxes."""
        if not isinstance(self.predictor, PoseEstimator) or not self.predictor.needs_boxes:
            return None
        assert self.predictor.find_boxes is not None
        boxes, scores = self.predictor.find_boxes(image, path)
        inside = [
            (score, (left, top, right - left, bottom - top))
            for (left, top, right, bottom), score in zip(boxes.tolist(), scores.tolist())
            if left <= x <= right and top <= y <= bottom
        ]
        return max(inside)[1] if inside else None


def predicted(demo: Demo, path: str | None, score_thr: float) -> tuple:
    """What the page shows of an image: figure, columns and rows of the table, a line of text, the figure's shape."""
    if path is None:
        return None, [], [], '', None
    try:
        answer = demo.predict(path, score_thr)
    except UserError as error:
        return None, [], [], f'**{error}**', None
    return answer.figure, answer.columns, answer.rows, answer.summary, answer.figure.shape


def attended(
    demo: Demo, path: str | None, shape: tuple | None, pixel: tuple[float, float] | None = None
) -> tuple[np.ndarray | None, str]:
    """What the page shows of an image's scopes: figure, and a line of text.

    Args:
        shape: Of the figure with the prediction; None if there is none.
        pixel: x and y of what is chosen in it (default: its middle).
    """
    if path is None or shape is None:
        return None, ''
    height, width = shape[:2]
    x, y = pixel or (width / 2, height / 2)
    try:
        return demo.scopes(path, (x / width, y / height)), HOW_TO_READ
    except UserError as error:
        return None, f'**{error}**'


def tabulate(data: dict) -> tuple[list[str], list[list[Any]], str]:
    """The data of a prediction of any task as columns and rows of a table, and what was found in words."""
    if 'top' in data:
        rows = [[item['class'], _short(item['score'])] for item in data['top']]
        return ['class', 'score'], rows, ', '.join(item['class'] for item in data['predicted'])
    if 'classes' in data:
        rows = [[item['class'], _short(item['share'])] for item in data['classes']]
        return ['class', 'share of the pixels'], rows, _count(len(rows), 'class', 'classes')
    instances = data['instances']
    if instances and 'keypoints' in instances[0]:
        rows = [
            [number, joint['name'], _short(joint['score']), round(joint['x'], 1), round(joint['y'], 1)]
            for number, person in enumerate(instances, 1)
            for joint in person['keypoints']
        ]
        return ['person', 'joint', 'score', 'x', 'y'], rows, _count(len(instances), 'person', 'people')
    rows = [[item['class'], _short(item['score']), *(round(side, 1) for side in item['bbox'])] for item in instances]
    return ['class', 'score', 'x', 'y', 'width', 'height'], rows, _count(len(rows), 'object', 'objects')


def _short(share: float) -> float:
    return round(share, 3)


def _count(number: int, one: str, many: str) -> str:
    return f'{number} {one if number == 1 else many}' if number else f'no {many} of this score'


def _enlarge(figure: np.ndarray) -> np.ndarray:
    factor = CLEAR / max(figure.shape[:2])
    if factor <= 1:
        return np.ascontiguousarray(figure)
    return cv2.resize(figure, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(110)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
