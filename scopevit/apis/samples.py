"""What a data set says of its samples: names of classes, images, and whether predictions are of them."""

import os
from typing import Any

import mmcv
import numpy as np

from ..utils.errors import UserError


def class_names(dataset: Any, count: int | None = None) -> list[str]:
    """Names of a data set's classes, the first where it has several for one; numbers for those that it does not name.

    Args:
        count: How many classes there are; None: as many as are named.
    """
    names = [str(name).split(',')[0] for name in dataset.metainfo.get('classes') or ()]
    return (names + [str(i) for i in range(len(names), count or 0)])[: count or None]


def load_sample(dataset: Any, index: int) -> np.ndarray:
    """The image of a sample: (H, W) in grey or (H, W, 3) in RGB."""
    info = dataset.get_data_info(index)
    return np.squeeze(info['img'] if 'img' in info else mmcv.imread(info['img_path'], channel_order='rgb'))


def require_same_images(dataset: Any, results: list[dict]) -> None:
    """Make sure that predictions are of a data set's images, by their number and the names of the first and the last.

    Raises:
        UserError: If they are not, or there is no image.
    """
    if len(results) != len(dataset):
        raise UserError(
            f'there are predictions for {len(results)} images, but the test set has {len(dataset)}; were they made '
            'with another config?'
        )
    if not results:
        raise UserError('the test set is empty')
    for i in (0, len(results) - 1):
        found, expected = results[i].get('img_path'), dataset.get_data_info(i).get('img_path')
        if found and expected and os.path.basename(found) != os.path.basename(expected):
            raise UserError(
                f'prediction {i} is of {found}, but image {i} of the test set is {expected}; were they made with '
                'another config?'
            )
