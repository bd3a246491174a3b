"""Classes of pixels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations

from ...apis.samples import class_names
from ...utils.errors import UserError
from .common import Analysis, Judged, rates, share, taken_for


def analyze_pixels(dataset: Any, results: list[dict], chosen: Iterable[int]) -> Analysis:
    """Compare predicted label maps with the data set's, which are read again.

    mmseg's own tool takes one from labels that its data sets have reduced already, so pixels are counted here.

    Args:
        chosen: The images that are compared.

    Raises:
        UserError: If label maps and predictions differ in size.
    """
    names = class_names(dataset)
    n = len(names)
    total, occurs, images = np.zeros((n, n), np.int64), np.zeros(n, int), []
    for i in chosen:
        ground_truth = _label_map(dataset, i)
        found = results[i]['pred_sem_seg']
        found = np.asarray(found.get('data', found.get('sem_seg'))).squeeze()
        path = results[i].get('img_path') or ''
        if ground_truth.shape != found.shape:
            raise UserError(
                f'the label map of {path} has the shape {ground_truth.shape}, but its prediction {found.shape}'
            )
        # Neither ignored pixels nor numbers beyond the classes have a place in the matrix.
        counted = (ground_truth != getattr(dataset, 'ignore_index', 255)) & (ground_truth < n) & (found < n)
        # One number stands for a pair of classes: a single bincount then fills the matrix.
        pairs = n * ground_truth[counted].astype(np.int64) + found[counted]
        matrix = np.bincount(pairs, minlength=n * n).reshape(n, n)
        total += matrix
        occurs += matrix.any(1)
        # A class that is neither there nor predicted says nothing of an image.
        ious = [rate['IoU'] for rate in rates(matrix) if rate['IoU'] is not None]
        if ious:
            images.append(Judged(int(i), path, float(np.mean(ious)), f'mIoU {np.mean(ious):.2f}', results[i]))
    if not images:
        raise UserError('all pixels of the test set are ignored')
    # The rates are of all pixels together, as mmseg's are, not means over images.
    rows = []
    others = taken_for(total, names)
    for k, rate in enumerate(rates(total)):
        kept = {key: rate[key] for key in ('IoU', 'precision', 'recall')}
        part = share(total[k].sum(), total.sum())
        rows.append({'class': names[k], 'images': int(occurs[k]), 'pixels': part, **kept, 'taken for': others[k]})
    images.sort(key=lambda image: image.score)
    of = f'{len(images):,} of {len(results):,} images'
    return Analysis(dataset, 'class', rows, 'IoU', 'mean IoU of its classes', images, of, names, total)


def _label_map(dataset: Any, index: int) -> np.ndarray:
    """A label map (H, W), by the part of the pipeline that reads it if there is one, else by all of it."""
    loaders = [step for step in getattr(dataset.pipeline, 'transforms', ()) if isinstance(step, LoadAnnotations)]
    if not loaders:
        return dataset[index]['data_samples'].gt_sem_seg.data.squeeze().numpy()
    info = dataset.get_data_info(index)
    for step in loaders:
        info = step(info)
    return info['gt_seg_map']
