"""What the analyses of all tasks have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RECALLS = np.linspace(0, 1, 101)
"""Where curves have their points, as in COCO's evaluation."""
MOST_CURVES = 10
BACKGROUND = 'background'  # as which a missed object is predicted


@dataclass(frozen=True)
class Judged:
    """A sample of the data set.

    Attributes:
        index: Which one.
        path: Its image, as far as it has a file.
        score: Between 0 and 1, the better the higher.
        text: What is wrong with it.
        predicted: Its entry of predictions.pkl; None if nothing was predicted.
    """

    index: int
    path: str
    score: float
    text: str
    predicted: dict | None


@dataclass(frozen=True)
class Curve:
    """Precision over :data:`RECALLS`, in one of a figure's parts."""

    part: str
    label: str
    precision: np.ndarray


@dataclass
class Analysis:
    """What predictions come to.

    Attributes:
        dataset: What :attr:`images` are samples of.
        unit: What a row is about, ``'class'`` or ``'keypoint'``.
        rows: By name of the column. Rates are between 0 and 1, None where nothing can be said.
        quality: The column by which rows are good or bad.
        measure: What the score of an image is.
        images: From the worst to the best.
        of: How many images were compared, in words.
        labels: Of the rows and columns of :attr:`confusion`.
        confusion: How often what is of a row's class was predicted as the column's; None if that makes no sense.
        curves: Precision over recall, if computed.
    """

    dataset: Any
    unit: str
    rows: list[dict[str, Any]]
    quality: str
    measure: str
    images: list[Judged]
    of: str
    labels: list[str] = field(default_factory=list)
    confusion: np.ndarray | None = None
    curves: list[Curve] = field(default_factory=list)

    def confused(self, most: int) -> list[tuple[str, str, int, float]]:
        """The pairs of classes confused most often: ground truth, prediction, how often, share of the ground truth."""
        if self.confusion is None:
            return []
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind='stable')[:most]]
        totals = self.confusion.sum(1)
        return [
            (self.labels[i], self.labels[j], int(wrong[i, j]), float(wrong[i, j] / totals[i]))
            for i, j in pairs
            if wrong[i, j]
        ]


def share(part: float, whole: float) -> float | None:
    """One number divided by another; None if there is nothing to divide."""
    return float(part / whole) if whole else None


def mean_of(precision: np.ndarray) -> float | None:
    """An average precision; None for a class that does not occur, whose values are NaN."""
    average = float(precision.mean())
    return average if np.isfinite(average) else None


def rates(matrix: np.ndarray) -> list[dict[str, Any]]:
    """Precision, recall, F1 and IoU of every class.

    Args:
        matrix: Confusion matrix (C, C); rows are the ground truth.
    """
    right, ground_truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return [
        dict(precision=share(r, p), recall=share(r, t), F1=share(2 * r, p + t), IoU=share(r, p + t - r))
        for r, t, p in zip(right, ground_truth, predicted)
    ]


def taken_for(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """As which other class each class is predicted most often; empty where that never happens."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    return [names[row.argmax()] if row.any() else '' for row in wrong]


def worst_curves(precision: np.ndarray, names: Sequence[str], part: str) -> list[Curve]:
    """A curve for each of the classes with the lowest average precision.

    Args:
        precision: Of shape (101, C), NaN for classes that do not occur.
    """
    average = precision.mean(0)
    order = [k for k in np.argsort(average, kind='stable') if np.isfinite(average[k])][:MOST_CURVES]
    return [Curve(part, f'{names[k]} {average[k]:.2f}', precision[:, k]) for k in order]
