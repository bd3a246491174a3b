"""Where the people are, for models that find the joints of one person in a box."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..utils.config import load_config
from ..utils.errors import UserError
from .inferencer import BoxFinder, Detector, build_predictor
from .prediction_files import Input


def whole_image(image: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
    """A :data:`BoxFinder` for images of one person each."""
    return np.array([[0, 0, *image.shape[1::-1]]], np.float32), np.ones(1)


def detected_boxes(
    config: str | None, checkpoint: str | None, category: str, device: str, score_thr: float
) -> BoxFinder:
    """Let a detector find the people.

    Args:
        config: Of the detector; None is refused, as for the checkpoint.
        category: The name of their class, or its number.
        device: Where the detector runs.
        score_thr: People of lower scores are left out.

    Raises:
        UserError: If it is no detector, has no such class, or one of config and checkpoint is missing.
    """
    if not (config and checkpoint):
        raise UserError('a detector needs both --detector-config and --detector-checkpoint')
    detector = build_predictor(load_config(config), checkpoint, device, score_thr)
    if not isinstance(detector, Detector):
        raise UserError(f'--detector-config {config} is not a config of mmdet')
    if category not in detector.classes and not category.isdigit():
        known = ', '.join(detector.classes[:8]) or 'only numbered'
        raise UserError(f'the detector has no class {category}; its classes are {known}: choose --detector-category')
    label = detector.classes.index(category) if category in detector.classes else int(category)
    from mmpose.evaluation.functional import nms

    def find(image: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = detector.boxes(image, label)
        kept = nms(np.column_stack([boxes, scores]), 0.3)  # as in mmpose: else one person could get two skeletons
        return boxes[kept], scores[kept]

    return find


def boxes_from_file(path: str, inputs: Sequence[Input]) -> BoxFinder:
    """Let a file say where the people are: a JSON list of detections as COCO has them.

    Each is ``{"file_name" or "image_id", "category_id", "bbox": [x, y, width, height], "score"}``.
    ``file_name`` is the name of an input (see :class:`Input`), ``image_id`` the number that its file
    is called; boxes of ``category_id`` 1 are people.

    Raises:
        UserError: If the file has another form, or no box for any input.
    """
    try:
        with open(path) as file:
            entries = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'--boxes {path} cannot be read as JSON: {error}') from None
    if not isinstance(entries, list):
        raise UserError(f"--boxes {path} is not a list of detections in COCO's results format")
    if any(item.is_video for item in inputs):
        raise UserError('--boxes FILE is for images; for a video use --boxes whole or a detector')
    paths = _paths_by_name_and_id(inputs)
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    for entry in entries:
        key, box = _read_detection(entry, path)
        owners = paths.get(key, [])
        if len(owners) > 1:
            raise UserError(f'--boxes {path}: image_id {key} is that of {" and ".join(owners)}; give the file_name')
        if owners and entry['category_id'] == 1:
            boxes[owners[0]].append(box)
    if not boxes:
        some = ', '.join(map(str, list(paths)[:3]))
        raise UserError(f'--boxes {path} has no box for any input; their names and ids are {some}, ...')

    def find(image: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
        found = np.array(boxes.get(path, []), np.float32).reshape(-1, 5)
        return found[:, :4], found[:, 4]

    return find


def _paths_by_name_and_id(inputs: Sequence[Input]) -> dict[str | int, list[str]]:
    paths: dict[str | int, list[str]] = defaultdict(list)
    for item in inputs:
        paths[item.name].append(item.path)
        stem = os.path.splitext(os.path.basename(item.path))[0]
        if stem.isdecimal():
            paths[int(stem)].append(item.path)
    return paths


def _read_detection(entry: dict, path: str) -> tuple[str | int, list[float]]:
    """The image and the box (left, top, right, bottom, score) of an entry."""
    try:
        key = entry['file_name'] if 'file_name' in entry else int(entry['image_id'])
        x, y, width, height = map(float, entry['bbox'])
        box = [x, y, x + width, y + height, float(entry['score'])]
        is_sound = isinstance(key, (str, int)) and all(map(math.isfinite, box)) and min(width, height) > 0
        if entry['category_id'] is None or not is_sound:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f'--boxes {path}: {entry} is not a detection as COCO has them: {{"image_id" or "file_name", "category_id", '
            '"bbox": [x, y, width, height], "score"}'
        ) from None
    return key, box
