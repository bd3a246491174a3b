"""Figures of attention and evidence over an image.

Shape legend: as in attention_maps.py.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..apis.view import View
from ..models.layers import SCOPES
from .attention_maps import GSDA, Layer, by_scope
from .evidence import Target

COLUMNS = (*(f'{k}x{k}' for k in SCOPES), GSDA)
COLOURS = dict(zip(COLUMNS, ('tab:blue', 'tab:orange', 'tab:green', 'tab:purple')))
HEAT = matplotlib.colormaps['inferno']
PANEL, LEFT = 2.1, 3.8  # inches


def draw_scopes(view: View, layers: Sequence[Layer], heads: list[dict], pixel: tuple[float, float]) -> Figure:
    """What each scope attends to from a pixel (x, y) of the image, a row for each stage, beside all heads' distances.

    Below each panel stand the scope's mean distance and what the brightest key has, in units of equal weights.

    Args:
        layers: Of the stages to draw; of each stage and scope it is the last one.
        heads: What :func:`head_distances` gives.
    """
    # A scope has one panel a stage; its last layer is nearest to the stage's output.
    last = {(layer.stage, scope): layer for layer in layers for scope in layer.scopes}
    stages = sorted({layer.stage for layer in layers})
    # The rows of panels decide the height, but never below what the left column needs.
    high = 0.9 * PANEL * view.image.shape[0] / view.image.shape[1]
    size = (LEFT + PANEL * len(COLUMNS), 0.3 + max((high + 0.25) * len(stages), 6.4))
    figure = Figure(figsize=size, layout='constrained')
    # What is said once, for all stages, stands on the left.
    left, right = figure.subfigures(1, 2, width_ratios=(LEFT, PANEL * len(COLUMNS)))
    above, below = left.subplots(2, 1)
    _show(above, view.image)
    _mark(above, pixel)
    above.set_title('the chosen pixel', fontsize=11)
    below.set_box_aspect(0.9)
    _plot_distances(below, heads)
    left.legend(loc='outside lower center', ncols=3, fontsize=9)

    # A scope keeps its column where a stage has no head of it, so that stages can be compared downwards.
    grid = right.subplots(len(stages), len(COLUMNS), squeeze=False)
    means = by_scope(heads)
    for row, stage in zip(grid, stages):
        for axes, scope in zip(row, COLUMNS):
            layer = last.get((stage, scope))
            if layer is None:
                _show(axes, np.full_like(view.image, 255))
                axes.text(0.5, 0.5, 'no head', ha='center', color='0.5', fontsize=9.5, transform=axes.transAxes)
                axes.set_frame_on(False)
                continue
            most = _draw_attention(axes, view, layer, scope, pixel)
            axes.set_xlabel(f'{means[stage, scope][0]:.0f} px, brightest x{most:.3g}', fontsize=9.5, labelpad=2)
        row[0].set_ylabel(f'stage {stage}', fontsize=11)
    for axes, scope in zip(grid[0], COLUMNS):
        axes.set_title(scope, fontsize=11, color=COLOURS[scope])
    return figure


def _draw_attention(axes: Axes, view: View, layer: Layer, scope: str, pixel: tuple[float, float]) -> float:
    """The keys that a pixel's token attends to, by the mean of a scope's heads.

    Returns:
        The largest weight, in units of equal weights.
    """
    _show(axes, _faint(view.image))
    seen = layer.attend(layer.token_at(view.in_input(*pixel)))
    chosen = [head for head, own in enumerate(layer.scopes) if own == scope]
    weights = seen.weights[chosen, 0].mean(0).numpy()
    keys = seen.keys[0].numpy().astype(float)
    if scope == GSDA:
        is_real = seen.is_real[0].numpy()
        rows, cols = view.in_image(keys[is_real] * layer.stride).T
        colours = HEAT(weights[is_real] / weights.max())
        axes.scatter(cols, rows, s=16, c=colours, edgecolors='white', linewidths=0.5, zorder=3)
    else:
        heat = weights.reshape(len(np.unique(keys[:, 0])), -1)
        extent = keys.max(0) - keys.min(0)
        step = np.where(extent > 0, extent / np.maximum(np.array(heat.shape) - 1, 1), 1.0)
        _blend(axes, view, heat, keys[0] * layer.stride, step * layer.stride, smooth=False)
        # What one key is computed from.
        side = int(scope[0]) * layer.stride * view.scale
        top, left = view.in_image(keys[weights.argmax()] * layer.stride) - side / 2
        window = Rectangle((left, top), side[1], side[0], fill=False, color='white', linewidth=1, linestyle='--')
        axes.add_patch(window)
    _mark(axes, pixel)
    return float(weights.max() * seen.is_real.sum())


def _blend(axes: Axes, view: View, heat: np.ndarray, first: np.ndarray, step: np.ndarray, smooth: bool) -> None:
    """Values (H, W) over the image, the higher the less transparent.

    Args:
        first, step: Row and column of the input at which the first value lies, and those between two values.
        smooth: Whether values between are interpolated; beyond the last they stay the same.
    """
    rows, cols = (
        ((np.arange(side) - start) / by).clip(0, count - 1)
        for side, start, by, count in zip(view.size, first, step, heat.shape)
    )
    cols, rows = np.meshgrid(cols.astype(np.float32), rows.astype(np.float32))
    heat = cv2.remap(heat.astype(np.float32), cols, rows, cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
    share = heat / max(float(heat.max()), 1e-12)
    (top, left), (bottom, right) = view.in_image(np.array([[-0.5, -0.5], np.array(view.size) - 0.5]))
    axes.imshow(HEAT(share), alpha=0.85 * np.sqrt(share), extent=(left, right, bottom, top), interpolation='nearest')


def _plot_distances(axes: Axes, heads: list[dict]) -> None:
    """A dot for each head, a line for each scope's mean, and a bar where equal weights would be."""
    means = by_scope(heads)
    for column, scope in enumerate(COLUMNS):
        own = [head for head in heads if head['scope'] == scope]
        stages = sorted({head['stage'] for head in own})
        shift, colour = 0.14 * (column - 1.5), COLOURS[scope]
        places = [stage + shift for stage in stages]
        distances = [head['distance'] for head in own]
        axes.scatter([head['stage'] + shift for head in own], distances, s=10, color=colour, alpha=0.6, linewidths=0)
        axes.plot(places, [means[stage, scope][0] for stage in stages], color=colour, label=scope, linewidth=1.5)
        axes.scatter(places, [means[stage, scope][1] for stage in stages], marker='_', s=50, color='0.35', zorder=3)
    axes.scatter([], [], marker='_', s=50, color='0.35', label='equal weights')
    axes.set_xticks(sorted({head['stage'] for head in heads}))
    axes.set_xlabel('stage', fontsize=11)
    axes.set_ylabel('mean attention distance, px', fontsize=11)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.3)


def draw_evidence(found: Sequence[tuple[View, Target, dict[str, list[np.ndarray]]]]) -> Figure:
    """A row for each image and method: the prediction, then the evidence of each stage.

    Args:
        found: Of each image its view and what :func:`evidence` gives.
    """
    rows = [(view, target, name, cams) for view, target, by_name in found for name, cams in by_name.items()]
    cols = 1 + max(len(cams) for *_, cams in rows)
    heights = [PANEL * view.image.shape[0] / view.image.shape[1] for view, *_ in rows]
    figure = Figure(figsize=(PANEL * cols, sum(heights) + 0.3 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), cols, squeeze=False, height_ratios=heights)
    for axes, (view, target, name, cams) in zip(grid, rows):
        _show(axes[0], view.image)
        _draw_target(axes[0], view, target)
        axes[0].set_title(target.title, fontsize=11)
        axes[0].set_ylabel(name, fontsize=11)
        for stage, (panel, cam) in enumerate(zip(axes[1:], cams)):
            _show(panel, _faint(view.image))
            _blend(panel, view, cam, np.zeros(2), np.full(2, 2.0 ** (stage + 2)), smooth=True)
            panel.set_title(f'stage {stage + 1}', fontsize=11)
            _draw_target(panel, view, target, faint=True)
    return figure


def _draw_target(axes: Axes, view: View, target: Target, faint: bool = False) -> None:
    """The box, the outline or the joint that a prediction is about."""
    line: dict[str, Any] = dict(color='cyan', linewidth=0.8 if faint else 1.6)
    if target.box is not None:
        left, top, right, bottom = target.box
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **line))
    if target.mask is not None:
        rows, cols = (np.arange(side, dtype=float) for side in target.mask.shape)
        rows, cols = rows * view.scale[0] + view.offset[0], cols * view.scale[1] + view.offset[1]
        if not target.mask.all():
            axes.contour(cols, rows, target.mask, levels=[0.5], colors='cyan', linewidths=line['linewidth'])
    if target.point is not None:
        _mark(axes, (target.point[1], target.point[0]))


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.autoscale(False)  # what is drawn over it may reach beyond


def _faint(image: np.ndarray) -> np.ndarray:
    """In grey, so that colours are of what lies over it alone."""
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)


def _mark(axes: Axes, pixel: tuple[float, float]) -> None:
    for colour, width in (('black', 3.0), ('cyan', 1.5)):
        axes.scatter(*pixel, marker='+', s=60, color=colour, linewidths=width, zorder=4)
