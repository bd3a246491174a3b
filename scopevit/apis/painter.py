"""Figures of data and predictions, drawn by the toolboxes' own visualizers."""

import math

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from ..utils.errors import UserError
from ..utils.files import check_file
from ..utils.image import write_image

SMALL = 360  # images whose longer side is below this are enlarged, so that names can be read


class Painter:
    """Draws samples of a data set with their ground truth, and with predictions beside it.

    Args:
        cfg: The config that the data set is of; its ``visualizer`` draws.
        dataset: The data set.
        score_thr: Lowest score of boxes that are drawn.

    Raises:
        UserError: If the config has no visualizer.
    """

    def __init__(self, cfg: Config, dataset: BaseDataset, score_thr: float = 0.4) -> None:
        if not cfg.get('visualizer'):
            raise UserError('this config has no visualizer')
        self.dataset = dataset
        self.scope = cfg.get('default_scope')
        # Without a backend nothing is written but what is asked for.
        self.visualizer = VISUALIZERS.build({**cfg.visualizer, 'vis_backends': None, 'name': f'painter{id(self)}'})
        if self.scope == 'mmpose':
            self.visualizer.set_dataset_meta(dataset.metainfo)
            dataset.pipeline.transforms[-1].pack_transformed = True  # the joints in the network's input
        else:
            self.visualizer.dataset_meta = dict(dataset.metainfo)
        self.options = dict(pred_score_thr=score_thr) if self.scope == 'mmdet' else {}

    def sample(self, index: int) -> np.ndarray:
        """What training sees of a sample: the image (H, W, 3) after its pipeline, RGB, with the ground truth drawn."""
        item = self.dataset[index]
        image = item['inputs']
        image = (image[0] if isinstance(image, (list, tuple)) else image).permute(1, 2, 0).numpy()
        if image.dtype != np.uint8:
            raise UserError('the pipeline of this config ends in floating-point images, which cannot be drawn')
        # What there is beyond three channels is not drawn.
        image = np.repeat(image, 3, 2) if image.shape[2] == 1 else np.ascontiguousarray(image[..., 2::-1])
        sample = _plain(item['data_samples'])
        if self.scope == 'mmpretrain':
            return self._draw_class(image, sample)
        return self._draw(*_enlarge(image, sample), draw_pred=False)

    def prediction(self, index: int, predicted: dict) -> np.ndarray:
        """The image (H, W, 3) in RGB with the ground truth on the left and what was predicted on the right.

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
        return self._draw(*_enlarge(image, sample), draw_pred=True)

    def _draw(self, image: np.ndarray, sample: BaseDataElement, draw_pred: bool) -> np.ndarray:
        panels = []
        for is_truth in (True, False) if draw_pred else (True,):
            self.visualizer.add_datasample('', image, sample, draw_gt=is_truth, draw_pred=not is_truth, **self.options)
            panels.append(self.visualizer.get_image())
        return np.concatenate(panels, axis=1)

    def _draw_class(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        factor = max(1, math.ceil(SMALL / max(image.shape[:2])))
        self.visualizer.visualize_cls(image, sample, rescale_factor=factor, draw_pred=False)
        return self.visualizer.get_image()


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


def check_figure(path: str) -> None:
    """Make sure that a figure can be written here, before the work of drawing it.

    Raises:
        UserError: If the name has no ending that OpenCV writes, or the folder cannot be written to.
    """
    if not cv2.haveImageWriter(path):
        raise UserError(f'--out {path} must end in .png or .jpg')
    check_file(path, '--out')


def save_grid(images: list[np.ndarray], cols: int, path: str, width: int = 1800) -> None:
    """Write images (H, W, 3) in RGB as one figure, ``cols`` in a row.

    Args:
        width: Width of the figure in pixels.
    """
    cols = min(cols, len(images))
    tile = width // cols
    fitted = []
    for image in images:
        scale = min(tile / image.shape[1], tile / image.shape[0])
        fitted.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    rows = [fitted[i : i + cols] for i in range(0, len(fitted), cols)]
    heights = [max(image.shape[0] for image in row) + 6 for row in rows]
    grid = np.full((sum(heights), tile * cols, 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights):
        for i, image in enumerate(row):
            grid[top : top + image.shape[0], i * tile : i * tile + image.shape[1]] = image
        top += height
    write_image(path, grid[..., ::-1])
