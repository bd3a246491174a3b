"""Classes of images."""

from typing import Any

import numpy as np
import torch
from mmpretrain.evaluation import ConfusionMatrix

from ...apis.samples import class_names
from ...utils.errors import UserError
from .common import RECALLS, Analysis, Curve, Judged, mean_of, rates, taken_for, worst_curves


def analyze_classes(dataset: Any, results: list[dict], with_curves: bool) -> Analysis:
    """Compare predicted classes, one for each image, with the labels.

    Raises:
        UserError: If images have several labels, or none, or the predictions no scores.
    """
    if not all({'gt_label', 'pred_score'} <= set(result) for result in results):
        raise UserError('the predictions have no scores, or the test set no labels')
    if any(torch.as_tensor(result['gt_label']).numel() != 1 for result in results):
        raise UserError('there is no analysis for images with several labels')
    scores = [result['pred_score'] for result in results]  # of thousands of classes too much to copy without need
    labels = torch.tensor([int(result['gt_label']) for result in results])
    predicted = torch.stack([score.argmax() for score in scores])
    classes = len(scores[0])
    if int(labels.max()) >= classes:
        raise UserError(f'the test set has label {int(labels.max())}, but the model {classes} classes')
    names = class_names(dataset, classes)
    matrix = ConfusionMatrix.calculate(predicted, labels, num_classes=classes).numpy()
    precision = _precision(torch.stack(scores).float().numpy(), labels.numpy()) if with_curves else None
    rows: list[dict[str, Any]] = []
    for k, (rate, other) in enumerate(zip(rates(matrix), taken_for(matrix, names))):
        row = {'class': names[k], 'images': int(matrix[k].sum()), 'predicted': int(matrix[:, k].sum())}
        row |= {key: rate[key] for key in ('precision', 'recall', 'F1')}
        if precision is not None:
            row['AP'] = mean_of(precision[:, k])
        rows.append(row | {'taken for': other})
    curves = [] if precision is None else _curves(precision, names)
    of_label = torch.stack([score[label] for score, label in zip(scores, labels)])
    images = [
        Judged(
            int(i),
            results[i].get('img_path') or '',
            float(of_label[i]),
            f'{names[predicted[i]]} {scores[i].max():.0%}, '
            + ('right' if predicted[i] == labels[i] else f'is {names[labels[i]]} ({of_label[i]:.0%})'),
            results[i],
        )
        for i in torch.argsort(of_label, stable=True).tolist()
    ]
    measure, of = 'score of the true class', f'{len(results):,} images'
    return Analysis(dataset, 'class', rows, 'F1', measure, images, of, names, matrix, curves)


def _precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each class against all others, by its scores: (101, C) over :data:`RECALLS`, NaN of classes without images."""
    precision = np.full((len(RECALLS), scores.shape[1]), np.nan)
    for k in np.unique(labels):
        order = np.argsort(-scores[:, k], kind='stable')
        found = np.cumsum(labels[order] == k)
        envelope = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
        precision[:, k] = envelope[np.searchsorted(found / found[-1], RECALLS)]
    return precision


def _curves(precision: np.ndarray, names: list[str]) -> list[Curve]:
    mean = np.nanmean(precision, axis=1)
    overall = Curve('mean of the classes', f'{mean.mean():.2f}', mean)
    return [overall, *worst_curves(precision, names, 'classes with the lowest AP')]
