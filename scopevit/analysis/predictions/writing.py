"""An analysis as files and as text."""

import csv
import os
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config

from ...apis.painter import Painter
from ...apis.samples import load_sample
from ...utils.files import save_figure, whole_file, write_json
from ...utils.tables import markdown
from .common import BACKGROUND, RECALLS, Analysis, Judged

MOST_CLASSES = 30
"""That a figure of a confusion matrix has."""
NAME_LENGTH = 20  # of classes in figures


def write_tables(analysis: Analysis, folder: str) -> list[str]:
    """Write ``per_class.csv`` (of poses ``per_keypoint.csv``) and ``confusion_matrix.json`` and ``.png``.

    Returns:
        The files' names.

    Raises:
        UserError: If they cannot be written.
    """
    names = [f'per_{analysis.unit}.csv']
    _write_csv(os.path.join(folder, names[0]), analysis.rows)
    if analysis.confusion is not None:
        names += ['confusion_matrix.json', 'confusion_matrix.png']
        matrix = dict(
            rows='ground truth', columns='prediction', classes=analysis.labels, matrix=analysis.confusion.tolist()
        )
        write_json(os.path.join(folder, names[1]), matrix, indent=None)
        save_figure(_confusion_figure(analysis), os.path.join(folder, names[2]))
    return names


def write_figures(analysis: Analysis, cfg: Config, folder: str, count: int = 12, score_thr: float = 0.3) -> list[str]:
    """Write ``per_image.csv``, the worst images as ``worst.jpg`` and, of curves, ``precision_recall.png``.

    Args:
        cfg: The config of the test run.
        count: How many images are drawn.
        score_thr: Lowest score of boxes that are drawn.

    Returns:
        The files' names.

    Raises:
        UserError: If they cannot be written.
    """
    names = ['per_image.csv']
    images = [
        dict(index=image.index, image=image.path, **{analysis.measure: image.score}, result=image.text)
        for image in analysis.images
    ]
    _write_csv(os.path.join(folder, names[0]), images)
    if analysis.curves:
        names.append('precision_recall.png')
        save_figure(_curve_figure(analysis), os.path.join(folder, names[-1]))
    worst = [image for image in analysis.images if image.predicted is not None][:count]
    if worst:
        names.append('worst.jpg')
        save_figure(_worst_figure(analysis, worst, cfg, score_thr), os.path.join(folder, names[-1]))
    return names


def summary(analysis: Analysis, most: int = 5) -> str:
    """The worst rows and the pairs that are confused most, as text."""
    known = [row for row in analysis.rows if row[analysis.quality] is not None]
    known.sort(key=lambda row: row[analysis.quality])
    unit = 'classes' if analysis.unit == 'class' else 'keypoints'
    lines = [f'{analysis.of}; the worst {min(most, len(known))} of {len(known)} {unit} by {analysis.quality}:']
    lines.append(
        markdown([list(analysis.rows[0]), *([_cell(value) for value in row.values()] for row in known[:most])])
    )
    lines += [_confusion_text(*pair) for pair in analysis.confused(most)]
    return '\n'.join(lines)


def _confusion_text(label: str, other: str, times: int, part: float) -> str:
    if label == BACKGROUND:
        return f'{other}: predicted {times:,} times where there is none'
    return f'{label}: {part:.0%} ' + ('missed' if other == BACKGROUND else f'predicted as {other}') + f' ({times:,})'


def _cell(value: Any) -> str:
    return '' if value is None else f'{value:.3f}' if isinstance(value, float) else str(value)


def _write_csv(path: str, rows: list[dict]) -> None:
    with whole_file(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: f'{value:.4f}' if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f'{name[: NAME_LENGTH - 1]}…'


def _confusion_figure(analysis: Analysis) -> Figure:
    """In percent of each row; of many classes those with the most mistakes."""
    matrix = analysis.confusion
    assert matrix is not None
    # Classes that are neither there nor predicted would be empty rows. Those chosen keep their order.
    wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    occurring = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    chosen = np.sort(occurring[np.argsort(-wrong[occurring], kind='stable')[:MOST_CLASSES]])
    # Shares of the whole row, mistakes for classes that are left out included.
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    percent = percent[np.ix_(chosen, chosen)]
    names = [_short(analysis.labels[k]) for k in chosen]
    edge = 2.5 + 0.36 * len(chosen)
    figure = Figure(figsize=(edge, edge), layout='constrained')
    axes = figure.subplots()
    axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(percent):
        # What rounds to 0 would only cover the colours.
        if value >= 0.5:
            axes.text(
                j, i, f'{value:.0f}', ha='center', va='center', fontsize=7, color='white' if value > 60 else 'black'
            )
    axes.set_xticks(range(len(names)), names, rotation=45, ha='right', rotation_mode='anchor', fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel='prediction', ylabel='ground truth')
    some = (
        '' if len(chosen) == len(occurring) else f'; the {len(chosen)} of {len(occurring)} classes with most mistakes'
    )
    axes.set_title(f'% of the ground truth{some}', fontsize=9)
    return figure


def _curve_figure(analysis: Analysis) -> Figure:
    parts = list(dict.fromkeys(curve.part for curve in analysis.curves))
    figure = Figure(figsize=(6.5 * len(parts), 4.5), layout='constrained')
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False).flat, parts):
        for curve in analysis.curves:
            if curve.part == part:
                axes.plot(RECALLS, curve.precision, label=_short(curve.label))
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02), title=part)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))  # beside them: good curves fill the frame
    return figure


def _worst_figure(analysis: Analysis, worst: list[Judged], cfg: Config, score_thr: float) -> Figure:
    """Images with titles; what has a place in them is drawn, ground truth on the left, prediction on the right."""
    is_drawn = 'pred_label' not in (worst[0].predicted or ())
    painter = Painter(cfg, analysis.dataset, score_thr) if is_drawn else None
    cols = min(3 if is_drawn else 6, len(worst))
    rows = -(-len(worst) // cols)
    figure = Figure(figsize=(12, 12 / cols * rows * (0.6 if is_drawn else 1.2)), layout='constrained')
    grid = figure.subplots(rows, cols, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, image in zip(grid.flat, worst):
        if painter is None:
            drawn = load_sample(analysis.dataset, image.index)
        else:
            drawn = _side_by_side([panel.image for panel in painter.prediction(image.index, image.predicted or {})])
        axes.imshow(drawn, cmap='gray')
        axes.set_title(f'{os.path.basename(image.path)}\n{image.text}'.strip(), fontsize=8)
    return figure


def _side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """Images of one height, with a white gap between them."""
    gap = np.full((images[0].shape[0], max(images[0].shape[1] // 32, 4), 3), 255, images[0].dtype)
    return np.concatenate([part for image in images for part in (gap, image)][1:], axis=1)
