"""Annotation files in COCO's form, read."""

import json
import math
import os
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..utils.errors import UserError, one_line
from ..utils.image import require_file
from .part import Part

# What each entry of a file needs, and of what kind it is.
_NUMBER, _ID = (int, float), (int, float, str)
FIELDS: dict[str, dict[str, Any]] = {
    'images': dict(id=_ID, file_name=str, width=_NUMBER, height=_NUMBER),
    'annotations': dict(id=_ID, image_id=_ID, category_id=_ID),
    'categories': dict(id=_ID, name=str),
}


def is_numbers(values: object, count: int) -> TypeGuard[list[float]]:
    """Whether a value is a list of so many finite numbers."""
    if not isinstance(values, list) or len(values) != count:
        return False
    try:
        return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    except OverflowError:  # of a number with hundreds of digits
        return False


@dataclass(frozen=True)
class CocoFile:
    """The content of an annotation file.

    Attributes:
        images: How many images it lists.
        sizes: Width and height of each image, by its id.
        files: Path of each image, by its id.
    """

    path: str
    images: int
    sizes: dict[object, tuple[int, int]]
    files: dict[object, str]
    annotations: list[dict]
    categories: list[dict]

    def name(self, annotation: dict) -> str:
        return f'annotation {annotation.get("id")}'


def read_coco(part: Part) -> CocoFile:
    """Read the annotation file of a data set.

    Raises:
        UserError: If it is none.
    """
    path, folder = part.dataset.ann_file, part.dataset.data_prefix['img']
    try:
        require_file(path)
        with open(path) as file:
            content = json.load(file)
        if not part.is_learnt and isinstance(content, dict):  # of a test the labels need not be known
            content.setdefault('annotations', [])
        for name, fields in FIELDS.items():
            for entry in content[name]:
                for field, kinds in fields.items():
                    if not isinstance(entry[field], kinds) or entry[field] is True:
                        raise TypeError(f'{field} of {str(entry)[:60]} is {str(entry[field])[:60]!r}')
        images = {image['id']: image for image in content['images']}
        if not all(is_numbers([i['width'], i['height']], 2) and i['width'] > 0 < i['height'] for i in images.values()):
            raise ValueError('images have to have a width and height above 0')
        return CocoFile(
            path=path,
            images=len(content['images']),
            sizes={i: (image['width'], image['height']) for i, image in images.items()},
            files={i: os.path.join(folder, image['file_name']) for i, image in images.items()},
            annotations=content['annotations'],
            categories=[dict(id=category['id'], name=category['name']) for category in content['categories']],
        )
    except (UserError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, UserError) else one_line(error)
        raise UserError(f'{path} is not a COCO annotation file ({reason}): correct it or use another') from error
