"""Predictions for one image after another, with a model of any of the four toolboxes.

What the toolboxes' own inferencers disagree on is settled here: how checkpoints are read (safely,
and only if they fit), how class names are found, what a prediction looks like as plain data, and
that nothing is ever downloaded.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS
from mmengine.structures import BaseDataElement

from ..utils.arguments import SCORE_THR, require_device
from ..utils.checkpoint import get_meta, read_checkpoint
from ..utils.config import innermost
from ..utils.errors import UserError, one_line
from ..utils.image import MOST_PIXELS, annotated, read_image, to_rgb
from ..utils.memory import available_memory
from ..utils.silence import silence
from .model import build_model, count_classes, in_scope


@dataclass
class Prediction:
    """What a model says of one image.

    Attributes:
        data: Plain numbers, strings, lists and dicts, ready for JSON.
        figure: The image with the prediction drawn, BGR.
        class_map: Semantic segmentation alone: the class of each pixel.
    """

    data: dict
    figure: np.ndarray
    class_map: np.ndarray | None = None


class Predictor:
    """A model with its checkpoint; called with an image, it gives a :class:`Prediction`."""

    scope: str
    visualizer_type: str | None = None

    def __init__(self, cfg: Config, checkpoint: str | None, device: str, score_thr: float) -> None:
        self.cfg = cfg
        self.score_thr = score_thr
        self.device = device
        self.dataset = innermost(cfg.test_dataloader.dataset)
        steps = self.dataset.get('pipeline') or []
        if not steps:
            raise UserError('the test_dataloader.dataset of the config has no pipeline, which prepares the images')
        self.model: Any = build_model(cfg, checkpoint).to(device).eval()
        # Images come loaded, and have no labels.
        needed = [step for step in steps if not re.search('Load.*(Image|Annotations)', str(step['type']))]
        try:
            with self.in_toolbox():
                self.pipeline = Compose(needed)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'the pipeline of the test_dataloader cannot be built: {one_line(error)}') from error
        self.meta = self._find_meta(checkpoint)
        color_type = next((step['color_type'] for step in steps if step.get('color_type')), 'color')
        in_channels = (cfg.model.get('backbone') or {}).get('in_channels')
        self.channels = 1 if 'grayscale' in color_type else in_channels if isinstance(in_channels, int) else 3
        self.is_stored_so = color_type == 'unchanged'
        self.is_turned = 'ignore_orientation' not in color_type
        self.classes: list[str] = list(self.meta.get('classes') or [])
        if self.visualizer_type:
            with self.in_toolbox():
                self.visualizer = VISUALIZERS.build(dict(type=self.visualizer_type, name=f'predictor{id(self)}'))

    def predict(self, image: np.ndarray, path: str) -> Prediction:
        raise NotImplementedError

    def read(self, path: str, most_pixels: int = MOST_PIXELS) -> np.ndarray:
        """An image as the model takes it, with its channels: (H, W, C), BGR if it has three, or (H, W).

        Raises:
            UserError: If it cannot be read, has other channels, or more pixels than are to be decoded.
        """
        return read_image(
            path, self.channels, turned=self.is_turned, as_stored=self.is_stored_so, most_pixels=most_pixels
        )

    @contextmanager
    def in_toolbox(self) -> Iterator[None]:
        """The toolbox's scope, and silence about its own settings."""
        with in_scope(self.scope), silence():
            yield

    def run(self, image: np.ndarray, *infos: dict) -> list[BaseDataElement]:
        """The toolbox's data samples for an image, one for each of ``infos``, which the pipeline is told."""
        batch = pseudo_collate([self.prepare(image, info) for info in infos])
        with torch.no_grad():
            samples = self.model.test_step(batch)
        for sample in samples:
            if 'seg_logits' in sample:  # of each class and pixel: gigabytes for a photograph
                del sample.seg_logits
        return [sample.cpu() for sample in samples]

    def prepare(self, image: np.ndarray, info: dict) -> dict:
        """What the pipeline makes of an image, and of what it is told: the model's ``inputs`` and ``data_samples``."""
        size = image.shape[:2]
        return self.pipeline(dict(img_shape=size, ori_shape=size, img_id=0, img_path='', img=image.copy(), **info))

    def __call__(self, image: np.ndarray, path: str) -> Prediction:
        with self.in_toolbox():
            prediction = self.predict(image, path)
        height, width = image.shape[:2]
        prediction.data = dict(width=width, height=height, **prediction.data)
        return prediction

    def class_name(self, label: int) -> str:
        return str(self.classes[label]) if label < len(self.classes) else str(label)

    def _find_meta(self, checkpoint: str | None) -> dict:
        """Facts of the training data: from the checkpoint, else from the config's data set."""
        meta = get_meta(read_checkpoint(checkpoint)) if checkpoint else {}
        found = meta.get('dataset_meta') or {key: meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
        found = {str(key).lower(): value for key, value in found.items()} if isinstance(found, dict) else {}
        if not isinstance(found.get('classes', ()), (list, tuple)):
            found = {}
        if not found:
            found = self._meta_of_config()
            counts = set(count_classes(self.model).values())
            if counts and len(found.get('classes') or ()) not in counts:  # names of other classes
                found = {key: value for key, value in found.items() if key not in ('classes', 'palette')}
        return found

    def _meta_of_config(self) -> dict:
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            meta = dict(registry.get(self.dataset['type'])._load_metainfo(self.dataset.get('metainfo')) or {})
        if isinstance(self.dataset.get('classes'), (list, tuple)):  # mmpretrain's older way
            meta['classes'] = self.dataset['classes']
        return meta


class Classifier(Predictor):
    """mmpretrain: the classes of an image."""

    scope, visualizer_type = 'mmpretrain', 'UniversalVisualizer'

    def predict(self, image: np.ndarray, path: str) -> Prediction:
        (sample,) = self.run(image, {})
        scores = sample.pred_score.flatten().tolist()
        if self.classes and len(self.classes) != len(scores):
            self.classes = []

        def describe(label: int) -> dict:
            return {'label': label, 'class': self.class_name(label), 'score': round(scores[label], 5)}

        best = sorted(range(len(scores)), key=lambda label: -scores[label])[:5]
        data = dict(predicted=[describe(label) for label in sample.pred_label.tolist()], top=[*map(describe, best)])
        # Text on a small image could not be read.
        height, width = image.shape[:2]
        resize = 256 if min(height, width) < 256 and max(height, width) <= 4 * min(height, width) else None
        figure = self.visualizer.visualize_cls(
            to_rgb(image), sample, classes=self.classes or None, draw_gt=False, resize=resize
        )
        return Prediction(data, figure[..., ::-1])


class Detector(Predictor):
    """mmdet: boxes, and masks where the model has them."""

    scope, visualizer_type = 'mmdet', 'DetLocalVisualizer'

    def boxes(self, image: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Corners (n, 4) of the boxes of one class's objects, and their scores (n,); nothing is drawn."""
        with self.in_toolbox():
            found = self._find(image)[0].pred_instances
        found = found[found.labels == label]
        return found.bboxes.numpy(), found.scores.numpy()

    def _find(self, image: np.ndarray) -> tuple[BaseDataElement, float | None]:
        """mmdet's data sample without the instances of a low score, and the best score of all."""
        from mmdet.structures.mask import mask2bbox

        (sample,) = self.run(image, {})
        if 'pred_instances' not in sample:
            raise UserError(f'{type(self.model).__name__} gives no boxes; only detectors of objects are supported')
        scores = sample.pred_instances.scores
        found = sample.pred_instances[scores >= self.score_thr]
        if 'masks' in found and len(found) and not found.bboxes.any():  # some models give masks alone
            found.bboxes = mask2bbox(found.masks)
        sample.pred_instances = found
        return sample, round(float(scores.max()), 5) if len(scores) else None

    def predict(self, image: np.ndarray, path: str) -> Prediction:
        from mmdet.structures.mask import encode_mask_results

        sample, best = self._find(image)
        found = sample.pred_instances
        instances: list[dict] = [
            {'label': label, 'class': self.class_name(label), 'score': round(score, 5), 'bbox': _rounded(box)}
            for box, label, score in zip(_xywh(found.bboxes.numpy()), found.labels.tolist(), found.scores.tolist())
        ]
        if 'masks' in found:
            for instance, mask in zip(instances, encode_mask_results(found.masks)):
                instance['mask'] = dict(size=list(mask['size']), counts=mask['counts'].decode())
        names = [self.class_name(label) for label in range(max(found.labels.tolist(), default=0) + 1)]
        self.visualizer.dataset_meta = dict(classes=names, palette=self._palette(len(names)))
        np.random.seed(0)  # mmdet varies the masks' colours at random
        self.visualizer.add_datasample('', to_rgb(image), sample, draw_gt=False, pred_score_thr=0)
        figure = self.visualizer.get_image()
        if not instances:
            figure = annotated(figure, f'no box with a score of {self.score_thr:g} or more; the best: {best}')
        data = dict(instances=instances, score_thr=self.score_thr, best_score=best)
        return Prediction(data, figure[..., ::-1])

    def _palette(self, count: int) -> object:
        palette = self.meta.get('palette')
        return [tuple(c) for c in palette] if isinstance(palette, list) and len(palette) >= count else 'random'


class Segmenter(Predictor):
    """mmseg: the class of each pixel."""

    scope = 'mmseg'

    def run(self, image: np.ndarray, *infos: dict) -> list[BaseDataElement]:
        """As for all models, if there is room: mmseg holds a score of each class for each pixel of the image.

        Raises:
            UserError: If there is not.
        """
        classes, free = getattr(self.model, 'out_channels', 1), available_memory(self.device)
        height, width = image.shape[:2]
        if free is not None and 4 * classes * height * width > free:
            raise UserError(
                f'cannot be predicted: scores of {classes} classes for {width}x{height} pixels take '
                f'{4 * classes * height * width / 1e9:,.1f} GB, but {free / 1e9:,.1f} GB are free; shrink it to less '
                f'than {free // (4 * classes):,} pixels, or cut it into parts'
            )
        return super().run(image, *infos)

    def predict(self, image: np.ndarray, path: str) -> Prediction:
        (sample,) = self.run(image, {})
        if 'pred_sem_seg' not in sample:
            raise UserError(f'{type(self.model).__name__} gives no classes of pixels; depth is not supported')
        class_map = sample.pred_sem_seg.data[0].numpy()
        class_map = class_map.astype(np.uint8 if class_map.max() < 256 else np.uint16)
        labels, counts = np.unique(class_map, return_counts=True)
        classes = [
            {'label': label, 'class': self.class_name(label), 'share': round(count / class_map.size, 6)}
            for label, count in sorted(zip(labels.tolist(), counts.tolist()), key=lambda pair: -pair[1])
        ]
        return Prediction(dict(classes=classes), self._draw(image, class_map, labels.tolist()), class_map)

    def _draw(self, image: np.ndarray, class_map: np.ndarray, labels: list[int]) -> np.ndarray:
        """Colours over the image and a name in each class's widest part.

        mmseg's own drawing takes seconds for a photograph: it sorts all pixels to place the names.
        """
        figure = to_rgb(image)
        palette = self.meta.get('palette') or []
        if len(palette) <= max(labels):
            palette = np.random.default_rng(0).integers(0, 256, (max(labels) + 1, 3))
        colours = np.asarray(palette, np.uint8)[class_map]
        figure = cv2.addWeighted(figure, 0.5, colours, 0.5, 0)
        scale = max(min(figure.shape[:2]) / 900, 0.3)
        for label in labels:
            # A frame of zeros keeps the name off the image's edge.
            inside = np.pad((class_map == label).astype(np.uint8), 1)
            _, room, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
            name = self.class_name(label)
            (width, height), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
            if room < height:
                continue
            place = (max(x - width // 2, 0), y + height // 2)
            for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(figure, name, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
        return figure[..., ::-1]


BoxFinder = Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray]]
"""Gives the boxes of the people in an image and its path: corners (n, 4), left, top, right, bottom, and scores (n,)."""


class PoseEstimator(Predictor):
    """mmpose: the joints of each person, in boxes that ``find_boxes`` gives where the model needs them."""

    scope, visualizer_type = 'mmpose', 'PoseLocalVisualizer'
    find_boxes: BoxFinder | None = None

    @property
    def needs_boxes(self) -> bool:
        return self.dataset.get('data_mode', self.cfg.get('data_mode', 'topdown')) == 'topdown'

    def predict(self, image: np.ndarray, path: str) -> Prediction:
        from mmpose.structures import merge_data_samples

        self.visualizer.set_dataset_meta(self.meta)
        # Lines and dots that can be seen in a photograph and do not cover a thumbnail.
        self.visualizer.radius = self.visualizer.line_width = max(1, round(min(image.shape[:2]) / 160))
        if self.needs_boxes:
            if self.find_boxes is None:
                raise UserError('this pose model finds the joints of one person in a box; set find_boxes')
            boxes, scores = self.find_boxes(image, path)
            if not len(boxes):
                return Prediction(dict(instances=[]), to_rgb(image)[..., ::-1])
            results = self.run(image, *map(self.info, boxes.astype(np.float32)))
            for sample, score in zip(results, scores):
                sample.pred_instances.bbox_scores = np.full(1, score, np.float32)
        else:
            results = self.run(image, self.meta)
        sample = merge_data_samples(results)
        self.visualizer.add_datasample(
            '', to_rgb(image), sample, draw_gt=False, draw_bbox=self.needs_boxes, kpt_thr=self.score_thr
        )
        return Prediction(dict(instances=self._describe(sample.pred_instances)), self.visualizer.get_image()[..., ::-1])

    def info(self, box: np.ndarray) -> dict:
        """What the pipeline has to know of a person whose box has these corners, (4,)."""
        return dict(self.meta, bbox=box[None], bbox_score=np.ones(1, np.float32))

    def _describe(self, found: Any) -> list[dict]:
        names: dict[int, str] = self.meta.get('keypoint_id2name') or {}
        instances = []
        for i in range(len(found)):
            instance: dict[str, Any] = {}
            if self.needs_boxes:
                instance['bbox'] = _rounded(_xywh(found.bboxes[i : i + 1])[0])
                instance['score'] = round(float(found.bbox_scores[i]), 5)
            instance['keypoints'] = [
                dict(name=names.get(k, str(k)), x=round(float(x), 2), y=round(float(y), 2), score=round(float(s), 5))
                for k, ((x, y), s) in enumerate(zip(found.keypoints[i], found.keypoint_scores[i]))
            ]
            instances.append(instance)
        return instances

    def _find_meta(self, checkpoint: str | None) -> dict:
        meta = super()._find_meta(checkpoint)
        # A published checkpoint holds plain data: the numbers of joints have become strings, arrays lists.
        plain = {key: _with_numbers_as_keys(value) for key, value in meta.items()}
        arrays = ('keypoint_colors', 'skeleton_link_colors', 'dataset_keypoint_weights', 'sigmas')
        return {key: np.asarray(value) if key in arrays else value for key, value in plain.items()}

    def _meta_of_config(self) -> dict:
        from mmpose.apis.inference import dataset_meta_from_config

        return dataset_meta_from_config(self.cfg, 'test') or {}


PREDICTORS = {kind.scope: kind for kind in (Classifier, Detector, Segmenter, PoseEstimator)}


def build_predictor(
    cfg: Config, checkpoint: str | None, device: str | None = None, score_thr: float = SCORE_THR
) -> Predictor:
    """The predictor for a config, by its ``default_scope``.

    Args:
        cfg: Config of any of the four toolboxes.
        checkpoint: Checkpoint of the config's model; None leaves it with random weights.
        device: Where to run (default: the GPU if there is one).
        score_thr: Instances below this score are left out, joints below it are not drawn.

    Raises:
        UserError: If the config is of another toolbox or has no test data set, the checkpoint
            does not fit, or there is no such device.
    """
    scope = cfg.get('default_scope')
    if scope not in PREDICTORS:
        raise UserError(f"the config's default_scope is {scope}; supported are {', '.join(PREDICTORS)}")
    if not cfg.get('model') or not (cfg.get('test_dataloader') or {}).get('dataset'):
        raise UserError('the config has no model or no test_dataloader.dataset, whose pipeline prepares the images')
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    require_device(device)
    return PREDICTORS[scope](cfg, checkpoint, device, score_thr)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """Corners to corner and size."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]], 1)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in values]


def _with_numbers_as_keys(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {
        int(key) if isinstance(key, str) and key.isdigit() else key: _with_numbers_as_keys(item)
        for key, item in value.items()
    }
