"""What the predictions of a test run come to: per class, confused classes, precision and recall, the worst images."""

from typing import Any

import numpy as np
from mmengine.config import Config

from ...apis.samples import require_same_images
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
    require_same_images(dataset, results)
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
