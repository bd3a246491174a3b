"""What the predictions of a test run come to: per class, confused classes, precision and recall, the worst images."""

import os
from typing import Any

import numpy as np
from mmengine.config import Config

from ...utils.errors import UserError
from .common import Analysis
from .writing import summary, write_figures, write_tables

__all__ = ['Analysis', 'analyze', 'summary', 'write_figures', 'write_tables']


def analyze(
    cfg: Config,
    dataset: Any,
    results: list[dict],
    *,
    score_thr: float = 0.3,
    full: bool = True,
    most: int | None = None,
) -> Analysis:
    """Compare predictions with the ground truth, in any of the four tasks.

    Args:
        cfg: The config of the test run.
        dataset: Its test set.
        results: The predictions, one dict for each sample, as predictions.pkl has them.
        score_thr: Lowest score of boxes that count as found.
        full: Compute what takes longer, too: curves of classifiers, average precision of masks.
        most: Of more images than this, boxes and pixels are compared in so many, evenly spread; None: in all.

    Raises:
        UserError: If the predictions are not of this data set, of another kind of task, or the data set
            has no ground truth.
    """
    if len(results) != len(dataset):
        raise UserError(
            f'there are predictions for {len(results)} images, but the test set has {len(dataset)}; were they made '
            'with another config?'
        )
    if not results:
        raise UserError('the test set is empty')
    _require_same_images(dataset, results)
    first = results[0]
    chosen = range(len(dataset)) if most is None else np.unique(np.linspace(0, len(dataset) - 1, most).astype(int))
    # Each imports its toolbox.
    if 'pred_label' in first:
        from .classification import analyze_classes

        return analyze_classes(dataset, results, with_curves=full)
    if 'pred_sem_seg' in first:
        from .segmentation import analyze_pixels

        return analyze_pixels(dataset, results, chosen)
    instances = first.get('pred_instances', {})
    if 'keypoints' in instances:
        from .pose import analyze_keypoints

        return analyze_keypoints(cfg, dataset, results)
    if {'bboxes', 'labels', 'scores'} <= set(instances.keys()):
        from .detection import analyze_boxes

        return analyze_boxes(dataset, results, chosen, score_thr, with_masks=full)
    raise UserError(
        f'there is no analysis for predictions of {", ".join(sorted(first))}: classes, boxes, label maps and keypoints '
        'are analysed'
    )


def _require_same_images(dataset: Any, results: list[dict]) -> None:
    """Make sure that predictions are of a data set's images, by the names of the first and the last."""
    for i in (0, len(results) - 1):
        found, expected = results[i].get('img_path'), dataset.get_data_info(i).get('img_path')
        if found and expected and os.path.basename(found) != os.path.basename(expected):
            raise UserError(
                f'prediction {i} is of {found}, but image {i} of the test set is {expected}; were they made with '
                'another config?'
            )
