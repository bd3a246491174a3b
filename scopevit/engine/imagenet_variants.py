"""Metrics of ImageNet's variants: accuracy among some of the classes, and errors under corruptions."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from ..registry import METRICS

ALEXNET = dict(
    gaussian_noise=0.886428, shot_noise=0.894468, impulse_noise=0.922640, defocus_blur=0.819880, glass_blur=0.826268,
    motion_blur=0.785948, zoom_blur=0.798360, snow=0.866816, frost=0.826572, fog=0.819324, brightness=0.564592,
    contrast=0.853204, elastic_transform=0.646056, pixelate=0.717840, jpeg_compression=0.606500,
)  # fmt: skip
"""Top-1 error of AlexNet under each corruption, the mean over severities 1 to 5: what errors are divided by.

Those of the authors of ImageNet-C, https://github.com/hendrycks/robustness (arXiv:1903.12261).
"""


@METRICS.register_module()
class SubsetAccuracy(BaseMetric):
    """Top-1 and top-5 accuracy, in percent, where a prediction is one of the classes that the data set has.

    These are the ``subset`` of its meta information, as :class:`ImageNetVariant` gives it; without one, all.
    """

    default_prefix = 'accuracy'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep of each image whether its label is the first, or among the first five."""
        subset = (self.dataset_meta or {}).get('subset')
        for sample in data_samples:
            scores = sample['pred_score'].cpu()
            labels = torch.arange(len(scores)) if subset is None else torch.tensor(subset)
            first = labels[scores[labels].topk(min(5, len(labels))).indices]
            hits = (first == sample['gt_label'].cpu()).tolist()
            self.results.append((hits[0], any(hits)))

    def compute_metrics(self, results: list) -> dict:
        """The share of images, in percent."""
        return {name: 100 * sum(hits) / len(hits) for name, hits in zip(('top1', 'top5'), zip(*results))}


@METRICS.register_module()
class CorruptionError(BaseMetric):
    """Errors on ImageNet-C, whose images lie in ``<corruption>/<severity>/<class>/``, in percent.

    ``CE_<corruption>`` is the top-1 error, averaged over the severities, divided by AlexNet's; ``mCE`` the mean of
    these, where all 15 corruptions were tested in all 5 severities; ``top1`` the accuracy on all images.
    """

    default_prefix = 'corruption'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep of each image where it lies and whether its label was predicted.

        The scores are taken out of the samples: written for all of ImageNet-C, 3.75 million images, by what keeps
        predictions after this, they would be 15 GB.
        """
        for sample in data_samples:
            corruption, severity = Path(sample['img_path']).parts[-4:-2]
            hit = int(sample.pop('pred_score').argmax()) == int(sample['gt_label'])
            self.results.append((corruption, severity, hit))

    def compute_metrics(self, results: list) -> dict:
        """Errors relative to AlexNet's."""
        hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for corruption, severity, hit in results:
            hits[corruption][severity].append(hit)
        metrics = {'top1': 100 * sum(hit for *_, hit in results) / len(results)}
        whole = {name: found for name, found in hits.items() if name in ALEXNET and set(found) == set('12345')}
        for name, found in whole.items():
            error = 1 - sum(sum(hit) / len(hit) for hit in found.values()) / len(found)
            metrics[f'CE_{name}'] = 100 * error / ALEXNET[name]
        if set(whole) == set(ALEXNET):
            metrics['mCE'] = sum(metrics[f'CE_{name}'] for name in ALEXNET) / len(ALEXNET)
        return metrics
