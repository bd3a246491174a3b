"""Rules for label maps, which mmseg reads."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..utils.errors import UserError, one_line
from ..utils.image import read_image
from .coco import unreadable
from .findings import Finding, first
from .part import Part
from .paths import check_image_count, exists


def check_segmentation(part: Part) -> Iterator[Finding]:
    """Images and label maps are there, and a sample of them is sound."""
    dataset, items = part.dataset, part.dataset.load_data_list()
    folder = dataset.data_prefix.get('img_path', '')
    if items:
        yield from check_image_count(part.where, type(dataset).__name__, folder, len(items))
    else:
        text = f'no file of {folder} ends with {dataset.img_suffix}: set img_suffix of the data set'
        yield Finding('error', part.where, text)
    for key, what in (('img_path', 'images'), ('seg_map_path', 'label maps')):
        missing = [item[key] for item in items if item.get(key) and not exists(item[key])]
        if missing:
            text = (
                f'{len(missing)} of {len(items)} {what} do not exist ({first(missing)}): unpack them again, or remove '
                'their counterparts'
            )
            yield Finding('error', part.where, text)
            items = [item for item in items if item.get(key) not in set(missing)]
    seen: set[int] = set()
    for item in part.choose(items):
        yield from check_label_map(part, item, seen)
    ignored = {dataset.ignore_index} | ({0, 255} if dataset.reduce_zero_label else set())
    if seen and seen <= ignored:
        text = 'all pixels of the label maps that were opened are ignored: check the labels'
        yield Finding('error', part.where, text)


def check_label_map(part: Part, item: dict, seen: set[int]) -> Iterator[Finding]:
    """An image and its label map can be read, agree in size, and have no unknown class.

    Args:
        seen: To it the values of the map are added.
    """
    image, path = None, item.get('seg_map_path')
    try:
        image = read_image(item['img_path'])
    except UserError as error:
        yield unreadable(part, item['img_path'], error)
    if not path:
        return
    try:
        with Image.open(path) as file:
            mode, labels = file.mode, np.asarray(file)
    except Exception as error:  # whatever a decoder says of damaged data
        text = f'label map {path} cannot be decoded ({one_line(error)}): unpack it again'
        yield Finding('error', part.where, text)
        return
    if labels.ndim != 2:
        text = (
            f'label map {path} is {mode}, but must have one channel whose values are class numbers: convert the '
            'colours to class numbers'
        )
        yield Finding('error', part.where, text)
        return
    if image is not None and labels.shape != image.shape[:2]:
        text = (
            f'label map {path} has {labels.shape[1]}x{labels.shape[0]} pixels, but its image '
            f'{image.shape[1]}x{image.shape[0]}: make them agree'
        )
        yield Finding('error', part.where, text)
    values = set(np.unique(labels).tolist())
    seen |= values
    highest, ignored = _highest_value(part), part.dataset.ignore_index
    wrong = sorted(value for value in values if value > highest and value not in (ignored, 255))
    if wrong and highest >= 0:
        text = (
            f'label map {path} has the values {first(wrong)}, but the classes of the config go from 0 to {highest} '
            f'(and {ignored} for ignored pixels): set metainfo.classes and num_classes, or correct the labels'
        )
        yield Finding('error', part.where, text)


def _highest_value(part: Part) -> int:
    """The highest class number that may stand in a label map, -1 if that is not known."""
    dataset = part.dataset
    # Old labels are renumbered to those of the wanted classes.
    classes = type(dataset).METAINFO['classes'] if dataset.label_map else dataset.metainfo.get('classes') or ()
    return len(classes) - (0 if dataset.reduce_zero_label else 1)
