"""Figures of data and predictions, drawn by the toolboxes' own visualizers."""

import math
import os
from dataclasses import dataclass
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from ..utils.arguments import SCORE_THR
from ..utils.config import type_name
from ..utils.errors import UserError
from ..utils.files import require_writable_file
from ..utils.image import text_width, write_image, write_text
from .samples import class_names, load_sample

SMALL = 360  # images whose longer side is below this are enlarged, so that names can be read
WITHIN, BETWEEN = 4, 24  # pixels between the panels of an item, and between items
TEXT = 14  # pixels, the size of captions
NAME_END = 10  # characters of a file's name that tell it from others


@dataclass(frozen=True)
class Panel:
    """One image of a figure.

    Attributes:
        image: (H, W, 3), RGB.
        caption: The line above it.
        shorter: What stands there instead where that is too long, the longest first.
    """

    image: np.ndarray
    caption: str
    shorter: tuple[str, ...] = ()


class Painter:
    """Draws samples of a data set with their ground truth, and with predictions beside it.

    Args:
        cfg: The config that the data set is of; its ``visualizer`` draws.
        dataset: The data set.
        score_thr: Lowest score of boxes that are drawn.

    Raises:
        UserError: If the config has no visualizer.
    """

    def __init__(self, cfg: Config, dataset: BaseDataset, score_thr: float = SCORE_THR) -> None:
        if not cfg.get('visualizer'):
            raise UserError('this config has no visualizer')
        self.dataset = dataset
        self.scope = cfg.get('default_scope')
        # Without a backend nothing is written but what is asked for.
        own: dict[str, Any] = dict(vis_backends=None, name=f'painter{id(self)}')
        is_usual = type_name(cfg.visualizer) == 'PoseLocalVisualizer'
        usual = dict(radius=5, line_width=3) if is_usual else {}  # seen in small images, too
        self.visualizer = VISUALIZERS.build({**usual, **cfg.visualizer, **own})
        if self.scope == 'mmpose':
            self.visualizer.set_dataset_meta(dataset.metainfo)
            dataset.pipeline.transforms[-1].pack_transformed = True  # the joints in the network's input
        else:
            self.visualizer.dataset_meta = dict(dataset.metainfo)
        self.score_thr = score_thr
        self.options = dict(pred_score_thr=score_thr) if self.scope == 'mmdet' else {}

    def sample(self, index: int) -> list[Panel]:
        """What training sees of a sample: its image after the pipeline, bare and with the ground truth drawn.

        Of classification there is one panel, with the class written into it.
        """
        item = self.dataset[index]
        image = item['inputs']
        image = (image[0] if isinstance(image, (list, tuple)) else image).permute(1, 2, 0).numpy()
        if image.dtype != np.uint8:
            if not _is_of_pixels(image):
                raise UserError('the pipeline of this config ends in normalized images, which cannot be drawn')
            image = image.clip(0, 255).astype(np.uint8)
        # What there is beyond three channels is not drawn.
        image = np.repeat(image, 3, 2) if image.shape[2] == 1 else np.ascontiguousarray(image[..., 2::-1])
        sample = _plain(item['data_samples'])
        if self.scope == 'mmpretrain':
            return [Panel(self._draw_class(image, sample), self._name(sample, index))]
        image, sample = _enlarge(image, sample)
        return [Panel(image, self._name(sample, index)), Panel(self._draw(image, sample, draw_gt=True), 'labels')]

    def prediction(self, index: int, predicted: dict) -> list[Panel]:
        """The image with the ground truth, and with what was predicted.

        Args:
            index: Which sample of the data set.
            predicted: The entry of predictions.pkl for it.
        """
        sample = _plain(self.dataset[index]['data_samples'])
        image = mmcv.imread(sample.img_path, channel_order='rgb')
        if 'pred_sem_seg' in predicted:
            labels = predicted['pred_sem_seg'].get('data', predicted['pred_sem_seg'].get('sem_seg'))
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels.astype(np.int64)))
        elif 'pred_instances' in predicted:
            sample.pred_instances = InstanceData(**_decode(predicted['pred_instances']))
        else:
            raise UserError('predictions.pkl holds neither classes, instances nor a segmentation')
        if self.scope == 'mmpose':
            image, sample = _crop_to_person(image, sample)
        image, sample = _enlarge(image, sample)
        name, says = self._name(sample, index), self._describe(predicted)
        shorter = f'…{name[-NAME_END:]}: ground truth', 'ground truth', 'GT'
        return [
            Panel(self._draw(image, sample, draw_gt=True), f'{name}: ground truth', shorter),
            Panel(self._draw(image, sample, draw_gt=False), says, (says.partition(',')[0], 'predicted')),
        ]

    def _name(self, sample: BaseDataElement, index: int) -> str:
        return os.path.basename(sample.get('img_path') or '') or f'item {index}'

    def _describe(self, predicted: dict) -> str:
        """What stands above a prediction: of a detector, how many boxes are drawn and what the best score is."""
        if self.scope != 'mmdet':
            return 'predicted'
        scores = np.asarray(predicted['pred_instances']['scores'])
        if not len(scores):
            return 'predicted: no box of any score'
        shown = int((scores >= self.score_thr).sum())
        return f'predicted: {shown or "no"} {"box" if shown == 1 else "boxes"}, score {self.score_thr:g} or more' + (
            '' if shown else f'; best {scores.max():.2g}'
        )

    def _draw(self, image: np.ndarray, sample: BaseDataElement, draw_gt: bool) -> np.ndarray:
        self.visualizer.add_datasample('', image, sample, draw_gt=draw_gt, draw_pred=not draw_gt, **self.options)
        return self.visualizer.get_image()

    def _draw_class(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        factor = max(1, math.ceil(SMALL / max(image.shape[:2])))
        self.visualizer.visualize_cls(image, sample, rescale_factor=factor, draw_pred=False)
        return self.visualizer.get_image()


def _is_of_pixels(image: np.ndarray) -> bool:
    """Whether floating-point numbers are those of 8 bits, as colour augmentation leaves them, and not normalized."""
    return image.max(initial=0) > 16


def _plain(sample: BaseDataElement) -> BaseDataElement:
    """The visualizers want boxes as tensors."""
    instances = sample.get('gt_instances')
    if instances is not None and hasattr(instances.get('bboxes'), 'tensor'):
        instances.bboxes = instances.bboxes.tensor
    return sample


def _decode(instances: dict) -> dict:
    """Masks out of COCO's RLE."""
    if len(instances.get('masks', ())):
        from pycocotools import mask

        masks = np.stack([mask.decode(rle) for rle in instances['masks']])
        instances = dict(instances, masks=torch.from_numpy(masks.astype(bool)))
    elif 'masks' in instances:
        instances = {key: value for key, value in instances.items() if key != 'masks'}
    return instances


def _crop_to_person(image: np.ndarray, sample: BaseDataElement) -> tuple[np.ndarray, BaseDataElement]:
    """Cut out the box of the one person that a sample of pose estimation is about, with some margin."""
    left, top, right, bottom = np.asarray(sample.gt_instances.bboxes)[0]
    margin = 0.15 * max(right - left, bottom - top)
    x, y = (max(0, int(edge - margin)) for edge in (left, top))
    image = np.ascontiguousarray(image[y : math.ceil(bottom + margin), x : math.ceil(right + margin)])
    for instances in (sample.gt_instances, sample.pred_instances):
        if 'transformed_keypoints' in instances:  # in the network's input, not in the image
            del instances.transformed_keypoints
        instances.keypoints = np.asarray(instances.keypoints) - (x, y)
    return image, sample


def _enlarge(image: np.ndarray, sample: BaseDataElement) -> tuple[np.ndarray, BaseDataElement]:
    """Enlarge a small image together with its labels."""
    factor = math.ceil(SMALL / max(image.shape[:2]))
    if factor <= 1:
        return image, sample
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    for key in ('gt_instances', 'pred_instances'):
        instances = sample.get(key)
        for name in ('bboxes', 'keypoints', 'transformed_keypoints'):
            if instances is not None and name in instances:
                instances.set_field(instances.get(name) * factor, name)
        if instances is not None and 'masks' in instances:
            masks = instances.masks
            masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else np.asarray(masks)
            instances.masks = torch.from_numpy(masks.astype(bool).repeat(factor, 1).repeat(factor, 2))
    for key in ('gt_sem_seg', 'pred_sem_seg'):
        labels = sample.get(key)
        if labels is not None:
            data = torch.as_tensor(labels.data)
            sample.set_field(
                PixelData(data=data.repeat_interleave(factor, -2).repeat_interleave(factor, -1)), key, dtype=PixelData
            )
    return image, sample


def require_writable_figure(path: str) -> None:
    """Make sure that a figure can be written here, before the work of drawing it.

    Raises:
        UserError: If the name has no ending that OpenCV writes, or the folder cannot be written to.
    """
    if not cv2.haveImageWriter(path):
        raise UserError(f'--out {path} must end in .png or .jpg')
    require_writable_file(path, '--out')


def save_grid(items: list[list[Panel]], cols: int, path: str, width: int = 1800) -> None:
    """Write items, each of panels side by side, as one figure with a line of text above each panel.

    The images of a row are equally high and fill its width, unless they would be higher than the figure is wide. A last
    row with fewer items is no higher than the one before.

    Args:
        cols: How many items stand in a row.
        width: Width of the figure in pixels.
    """
    rows, height = [], width
    for start in range(0, len(items), cols):
        row = items[start : start + cols]
        images = [panel.image for item in row for panel in item]
        free = width - BETWEEN * (len(row) - 1) - WITHIN * (len(images) - len(row))
        highest = height if len(row) < cols else width
        height = max(1, min(highest, int(free / sum(image.shape[1] / image.shape[0] for image in images))))
        rows.append(_row_of_panels(row, height, width))
    gap = np.full((BETWEEN, width, 3), 255, np.uint8)
    parts = [part for row in rows for part in (gap, row)]
    write_image(path, np.concatenate(parts[1:])[..., ::-1])


def _row_of_panels(items: list[list[Panel]], height: int, width: int) -> np.ndarray:
    """Panels with their captions, whose images are so many pixels high, on white."""
    margin = TEXT + 8
    row = np.full((margin + height, width, 3), 255, np.uint8)
    left = 0
    for item in items:
        for panel in item:
            wide = max(1, int(panel.image.shape[1] * height / panel.image.shape[0]))
            write_text(row[:margin, left : left + wide], _fitting(panel, wide), (0, 2), TEXT)
            row[margin:, left : left + wide] = cv2.resize(panel.image, (wide, height), interpolation=cv2.INTER_AREA)
            left += wide + WITHIN
        left += BETWEEN - WITHIN
    return row


def draw_classes(dataset: Any, results: list[dict], chosen: list[int], cols: int) -> Figure:
    """Images with the classes that a classifier predicts for them, mistakes in red.

    Args:
        results: The predictions for the whole data set: labels, one or several for an image, and as far as they are
            known scores and the ground truth.
        chosen: Which images to draw.
        cols: How many stand in a row.
    """
    rows = math.ceil(len(chosen) / cols)
    predicted, ground_truth = (_labels(results, key) for key in ('pred_label', 'gt_label'))
    highest = max((k for labels in (*predicted, *ground_truth) for k in labels or ()), default=0)
    names = class_names(dataset, 1 + highest)
    figure = Figure(figsize=(1.7 * cols, 2.05 * rows), layout='constrained')
    grid = figure.subplots(rows, cols, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, i in zip(grid.flat, chosen):
        scores = results[i].get('pred_score')
        found = [names[k] if scores is None else f'{names[k]} {float(scores[k]):.0%}' for k in predicted[i] or ()]
        title, target = '\n'.join(found) or 'nothing', ground_truth[i]
        if target is not None and predicted[i] != target:
            title += f'\nnot {", ".join(names[k] for k in target) or "nothing"}'
        color = 'black' if target is None else 'darkgreen' if predicted[i] == target else 'red'
        axes.imshow(load_sample(dataset, i), cmap='gray')
        axes.set_title(title, fontsize=8, color=color)
    known = [labels == target for labels, target in zip(predicted, ground_truth) if target is not None]
    right = f'{sum(known)} of {len(known)} test images right ({np.mean(known):.1%}); ' if known else ''
    figure.suptitle(f'{right}{len(chosen)} of {"them" if known else f"{len(results)} test images"}:')
    return figure


def _labels(results: list[dict], key: str) -> list[list[int] | None]:
    """The labels of each image; None where there is no such entry."""
    return [sorted(torch.as_tensor(result[key]).flatten().tolist()) if key in result else None for result in results]


def _fitting(panel: Panel, width: int) -> str:
    """The longest caption that fits into so many pixels, or the end of the shortest: ends tell names of files apart."""
    *longer, last = panel.caption, *panel.shorter
    ends = [last, *(f'…{last[start:]}' for start in range(1, len(last)))]
    return next((text for text in (*longer, *ends) if text_width(text, TEXT) <= width), '…')
