"""Boxes, and masks with them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...apis.samples import class_names
from ...utils.errors import UserError
from ...utils.silence import silence
from ...utils.toolboxes import load_tool
from .common import BACKGROUND, Analysis, Curve, Judged, mean_of, share, taken_for, worst_curves

IOU_THR = 0.5  # of boxes that count as found


def analyze_boxes(
    dataset: Any, results: list[dict], chosen: Iterable[int], score_thr: float, with_masks: bool
) -> Analysis:
    """Compare predicted boxes with the data set's, by pycocotools and mmdet's confusion matrix.

    Args:
        chosen: The images that are compared.
        score_thr: Lowest score of boxes that count as predicted. Average precision is of all.
        with_masks: Give the average precision of masks, too, if there are any.

    Raises:
        UserError: If no object of the data set is labelled.
    """
    names = class_names(dataset)
    infos = {int(i): dataset.get_data_info(int(i)) for i in chosen}
    found = {i: results[i]['pred_instances'] for i in infos}
    ground_truth = _coco(infos, names, _labelled(infos))
    if not any(not annotation['iscrowd'] for annotation in ground_truth.dataset['annotations']):
        raise UserError('no object of the test set is labelled')
    evaluation = _evaluate(ground_truth, _coco(infos, names, _predicted(found, with_masks)), 'bbox')
    precision = _precision(evaluation)
    scores = evaluation.eval['scores'][0, ..., 0, -1]  # (recalls, classes)
    right, wrong, missed = _counts(evaluation, score_thr)  # (classes, images) each
    matrix = _confusion(infos, found, len(names), score_thr)

    of_masks = None
    if with_masks and any('masks' in instances for instances in found.values()):
        of_masks = _precision_of_masks(ground_truth, infos, names, found)

    others = taken_for(matrix[: len(names), : len(names)], names)
    rows = []
    for k, name in enumerate(names):
        r, w, m = right[k].sum(), wrong[k].sum(), missed[k].sum()
        row = {
            'class': name,
            'objects': int(r + m),
            'AP': mean_of(precision[:, :, k]),
            'AP50': mean_of(precision[0, :, k]),
            'AP75': mean_of(precision[5, :, k]),
            'precision': share(r, r + w),
            'recall': share(r, r + m),
            'F1': share(2 * r, 2 * r + w + m),
            'best score_thr': _best_threshold(precision[0, :, k], scores[:, k], evaluation.params.recThrs),
        }
        if of_masks is not None:
            row['mask AP'] = mean_of(of_masks[:, :, k])
        rows.append(row | {'taken for': others[k]})
    occurring = np.isfinite(precision[0, 0])
    curves = [
        Curve('mean of the classes', f'IoU {evaluation.params.iouThrs[t]:.2f}: {curve.mean():.2f}', curve)
        for t in (0, 5, 8)
        for curve in [precision[t][:, occurring].mean(1)]
    ]
    curves += worst_curves(precision[0], names, 'classes with the lowest AP50')
    images = _judge(infos, results, right.sum(0), wrong.sum(0), missed.sum(0))
    labels = [*names, BACKGROUND]
    of = f'{len(infos):,} of {len(results):,} images, boxes of score {score_thr:g} or more, IoU {IOU_THR:g}'
    return Analysis(dataset, 'class', rows, 'AP', 'F1', images, of, labels, matrix, curves)


def _labelled(infos: dict[int, dict]) -> list[dict]:
    annotations = []
    for i, info in infos.items():
        for instance in info['instances']:
            left, top, right, bottom = instance['bbox']
            size = [left, top, right - left, bottom - top]
            shape = {'segmentation': instance['mask']} if 'mask' in instance else {}
            flag = int(bool(instance.get('ignore_flag', 0)))
            annotations.append(
                dict(image_id=i, category_id=instance['bbox_label'], bbox=size, area=size[2] * size[3], iscrowd=flag)
                | shape
            )
    return annotations


def _predicted(found: dict[int, Any], with_masks: bool) -> list[dict]:
    annotations = []
    for i, instances in found.items():
        boxes = np.asarray(instances['bboxes'], float).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        shapes = instances['masks'] if with_masks and 'masks' in instances else [None] * len(boxes)
        for box, label, score, shape in zip(
            boxes.tolist(), instances['labels'].tolist(), instances['scores'].tolist(), shapes
        ):
            annotation = dict(image_id=i, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0, score=score)
            annotations.append(annotation if shape is None else annotation | {'segmentation': shape})
    return annotations


def _coco(infos: dict[int, dict], names: Sequence[str], annotations: list[dict]) -> COCO:
    """The data in pycocotools' form; images by their index, classes by their label."""
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, height=info.get('height'), width=info.get('width')) for i, info in infos.items()],
        categories=[dict(id=k, name=name) for k, name in enumerate(names)],
        annotations=[annotation | {'id': i} for i, annotation in enumerate(annotations, 1)],  # 0 means unmatched
    )
    with silence(prints=True):
        coco.createIndex()
    return coco


def _evaluate(ground_truth: COCO, predicted: COCO, kind: str) -> COCOeval:
    """COCO's evaluation of objects of all sizes."""
    evaluation = COCOeval(ground_truth, predicted, kind)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    evaluation.params.maxDets = [100]
    with silence(prints=True):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _precision(evaluation: COCOeval) -> np.ndarray:
    """(IoUs, recalls, classes), NaN for classes that do not occur."""
    precision = evaluation.eval['precision'][..., 0, -1]
    return np.where(precision < 0, np.nan, precision)


def _precision_of_masks(
    ground_truth: COCO, infos: dict, names: Sequence[str], found: dict[int, Any]
) -> np.ndarray | None:
    """As :func:`_precision`; None if the ground truth has no masks."""
    if not all('segmentation' in annotation for annotation in ground_truth.dataset['annotations']):
        return None
    predicted = [annotation for annotation in _predicted(found, True) if 'segmentation' in annotation]
    return _precision(_evaluate(ground_truth, _coco(infos, names, predicted), 'segm'))


def _counts(evaluation: COCOeval, score_thr: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes that are right, boxes that are wrong and objects that are missed, by class and image."""
    shape = len(evaluation.params.catIds), len(evaluation.params.imgIds)
    right, wrong, missed = (np.zeros(shape, int) for _ in range(3))
    for place, matched in enumerate(evaluation.evalImgs):
        if matched is None:
            continue
        where = np.unravel_index(place, shape)
        sure = (np.asarray(matched['dtScores']) >= score_thr) & ~np.asarray(matched['dtIgnore'][0], bool)
        is_right = sure & (np.asarray(matched['dtMatches'][0]) > 0)
        right[where] = is_right.sum()
        wrong[where] = (sure & ~is_right).sum()
        missed[where] = np.sum(np.asarray(matched['gtIgnore']) == 0) - right[where]
    return right, wrong, missed


def _confusion(infos: dict[int, dict], found: dict[int, Any], classes: int, score_thr: float) -> np.ndarray:
    """mmdet's confusion matrix (C + 1, C + 1), the last for the background; regions that are to be ignored left out."""
    count = load_tool('mmdet', 'analysis_tools/confusion_matrix.py').analyze_per_img_dets
    matrix = np.zeros((classes + 1, classes + 1))
    for i, info in infos.items():
        objects = [instance for instance in info['instances'] if not instance.get('ignore_flag')]
        sure = found[i]['scores'] >= score_thr
        count(matrix, objects, {key: found[i][key][sure] for key in ('bboxes', 'labels', 'scores')}, tp_iou_thr=IOU_THR)
    return matrix.astype(np.int64)


def _judge(
    infos: dict[int, dict], results: list[dict], right: np.ndarray, wrong: np.ndarray, missed: np.ndarray
) -> list[Judged]:
    images = []
    # pycocotools sorts images by their number, which here is the order that they are in.
    for (i, info), r, w, m in zip(infos.items(), right, wrong, missed):
        score = 2 * r / (2 * r + w + m) if r + w + m else 1.0
        text = f'{r} found, {m} missed, {w} wrong'
        images.append((score, -(w + m), Judged(i, info.get('img_path', ''), float(score), text, results[i])))
    return [image for *_, image in sorted(images, key=lambda entry: entry[:2])]


def _best_threshold(precision: np.ndarray, scores: np.ndarray, recalls: np.ndarray) -> float | None:
    """The score from which on boxes give the best F1; None for a class that does not occur or is never found."""
    f1 = 2 * precision * recalls / np.maximum(precision + recalls, 1e-12)
    return float(scores[f1.argmax()]) if np.isfinite(f1).all() and f1.any() else None
