"""Rules for annotations of objects in COCO's form, which mmdet and mmpose read."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from ..utils.errors import UserError, one_line
from ..utils.image import read_image
from .findings import Finding, faulty, first
from .part import Part
from .paths import check_image_count, exists


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
        with open(path) as file:
            content = json.load(file)
        images = {image['id']: image for image in content['images']}
        if not all(isinstance(annotation, dict) for annotation in content['annotations']):
            raise TypeError('annotations have to be dicts')
        return CocoFile(
            path=path,
            images=len(content['images']),
            sizes={i: (image['width'], image['height']) for i, image in images.items()},
            files={i: os.path.join(folder, image['file_name']) for i, image in images.items()},
            annotations=content['annotations'],
            categories=[dict(id=category['id'], name=category['name']) for category in content['categories']],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is not a COCO annotation file ({one_line(error)}): use another') from error


def check_images(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """All images are there, each once."""
    yield from check_image_count(part.where, 'CocoDataset', coco.path, len(coco.files))
    if len(coco.files) < coco.images:
        yield Finding('error', part.where, f'image ids in {coco.path} are not unique: number them again')
    missing = [file for file in coco.files.values() if not exists(file)]
    if missing:
        text = (
            f'{len(missing)} of {len(coco.files)} images do not exist ({first(missing)}): unpack them again, or remove '
            'them from the annotation file'
        )
        yield Finding('error', part.where, text)


def check_categories(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """The classes are categories of the file, in its order: mmdet finds them by name and drops all others' objects."""
    where, classes = part.where, part.dataset.metainfo.get('classes') or []
    if isinstance(classes, str):
        yield Finding('error', where, f'classes is a text: write classes=({classes!r},), with a comma')
        return
    classes = list(classes)
    in_file = [category['name'] for category in coco.categories]
    # mmdet numbers the labels in the order of the file, whatever the order of the classes.
    labels = [name for name in in_file if name in classes]
    if not labels:
        text = (
            f'none of the classes of the config ({first(classes)}) is a category of {coco.path} ({first(in_file)}): '
            'set metainfo=dict(classes=(...)) of the data sets to the names of its categories, and num_classes to fit'
        )
        yield Finding('error', where, text)
        return
    if labels != classes[: len(labels)]:
        i = next(i for i, (a, b) in enumerate(zip(labels, classes)) if a != b)
        text = (
            f'the categories of {coco.path} are not in the order of the classes of the config: label {i} would be '
            f'called {classes[i]} but be {labels[i]}: put the classes in the order of the file'
        )
        yield Finding('warning', where, text)
    elif len(labels) < len(classes):
        lacking = [name for name in classes if name not in in_file]
        text = f'{coco.path} has only {len(labels)} of the {len(classes)} classes of the config, not {first(lacking)}'
        if part.is_learnt:
            yield Finding('note', where, f'{text}; compare metainfo.classes with its categories, if that is not meant')
        else:
            remedy = 'list them among its categories, even if it has none of their objects'
            yield Finding('warning', where, f'{text}: predictions of those cannot be evaluated; {remedy}')
    used = Counter(a.get('category_id') for a in coco.annotations)
    others = {c['name']: used[c['id']] for c in coco.categories if c['name'] not in classes and used[c['id']]}
    if others:
        text = (
            f'{sum(others.values())} objects are of categories that the config does not have ({first(list(others))}); '
            'they are passed over in training'
        )
        yield Finding('note', where, text)


def check_boxes(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Ids, categories and boxes are sound."""
    names = {category['id'] for category in coco.categories}
    strange, unknown, broken, outside = [], [], [], []
    for annotation in coco.annotations:
        name, box = coco.name(annotation), annotation.get('bbox')
        if annotation.get('image_id') not in coco.sizes:
            strange.append(f'{name}: image {annotation.get("image_id")}')
            continue
        if annotation.get('category_id') not in names:
            unknown.append(f'{name}: category {annotation.get("category_id")}')
        if not is_numbers(box, 4) or min(box[2:]) <= 0:
            broken.append(f'{name}: bbox {box}')
            continue
        (x, y, w, h), (width, height) = box, coco.sizes[annotation['image_id']]
        if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            outside.append(f'{name}: bbox {box} in {width}x{height}')
    total = len(coco.annotations)
    if not total:
        yield Finding('error', part.where, f'{coco.path} has no annotations')
    if len({a.get('id') for a in coco.annotations}) < total:
        text = f'annotation ids in {coco.path} are missing or not unique: number them again'
        yield Finding('warning', part.where, text)
    for items, what, remedy in (
        (strange, 'annotations are of images that the file does not list', 'remove them'),
        (unknown, 'category ids are not among the categories of the file', 'correct the ids'),
        (broken, 'boxes have no area or are not [x, y, width, height]', 'correct or remove them'),
        (outside, 'boxes reach outside the image', 'cut them off at the edges (are they x, y, x, y?)'),
    ):
        yield from faulty(part.where, items, total, what, remedy)


def check_areas(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """mmdet needs the area of each object, and drops those without any, or thinner than a pixel."""
    lacking, dropped, sides = [], [], []
    for annotation in coco.annotations:
        name, area, box = coco.name(annotation), annotation.get('area'), annotation.get('bbox')
        if not is_numbers([area], 1):
            lacking.append(f'{name}: area {area}')
        elif is_numbers(box, 4) and min(box[2:]) > 0 and (area <= 0 or min(box[2:]) < 1):
            dropped.append(f'{name}: area {area}, bbox {box}')
            sides += box[2:]
    total = len(coco.annotations)
    remedy = 'set area to width x height of the box'
    yield from faulty(part.where, lacking, total, 'objects have no area', remedy, is_fatal=True)
    hint = ' (boxes are in pixels, not in fractions of the image)' if sides and max(sides) <= 1 else ''
    what = 'objects have an area of 0 or are thinner than a pixel'
    yield from faulty(part.where, dropped, total, what, f'correct them{hint}')


def check_masks(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Each object has a mask of a form that mmdet reads, where masks are learnt."""
    if not _loads_masks(part):
        return
    missing, lines = [], []
    for annotation in coco.annotations:
        mask = annotation.get('segmentation')
        if not (mask.get('counts') and mask.get('size') if isinstance(mask, dict) else mask):
            file = coco.files.get(annotation.get('image_id'), 'no image')
            missing.append(f'{coco.name(annotation)}, an object in {file}')
        elif isinstance(mask, list) and not any(_is_polygon(polygon) for polygon in mask):
            lines.append(coco.name(annotation))
    remedy = 'the model learns masks: draw or remove those objects, or train a model of boxes alone'
    total = len(coco.annotations)
    yield from faulty(part.where, missing, total, 'masks are missing', remedy, is_fatal=True)
    yield from faulty(part.where, lines, total, 'masks have fewer than three points', remedy)


def _loads_masks(part: Part) -> bool:
    return any(getattr(t, 'with_mask', False) for t in getattr(part.dataset.pipeline, 'transforms', []))


def _is_polygon(points: object) -> bool:
    """Whether it has three points, fewer of which mmdet does not take."""
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0


def check_pixels(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """A sample of images can be read, and has the size that the file says and masks with pixels."""
    by_image: dict[object, list[dict]] = {}
    if _loads_masks(part):
        for annotation in coco.annotations:
            by_image.setdefault(annotation.get('image_id'), []).append(annotation)
    for i in part.choose(i for i, file in coco.files.items() if exists(file)):
        width, height = coco.sizes[i]
        try:
            image = read_image(coco.files[i])
        except UserError as error:
            yield unreadable(part, coco.files[i], error)
            continue
        if image.shape[:2] != (height, width):
            text = (
                f'{coco.files[i]} has {image.shape[1]}x{image.shape[0]} pixels, but {coco.path} says {width}x{height}: '
                'correct the annotation file (a photograph turned by its EXIF is read upright)'
            )
            yield Finding('error', part.where, text)
            continue
        for annotation in by_image.get(i, []):
            if annotation.get('segmentation') and not _has_pixels(annotation['segmentation'], width, height):
                text = (
                    f'the mask of {coco.name(annotation)} has no pixels in its image of {width}x{height}, or is of '
                    'another size: draw it again or remove it'
                )
                yield Finding('warning', part.where, text)


def _has_pixels(mask: object, width: int, height: int) -> bool:
    """Whether a mask covers something of an image, and is of its size."""
    from pycocotools import mask as masks

    try:
        is_encoded = isinstance(mask, dict) and isinstance(mask.get('counts'), str)
        encoded = mask if is_encoded else masks.frPyObjects(mask, height, width)
        encoded = masks.merge(encoded) if isinstance(encoded, list) else encoded
        return bool(masks.area(encoded) > 0) and list(encoded['size']) == [height, width]
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError):
        return False  # pycocotools cannot read it, which it says in one of these ways


def unreadable(part: Part, path: str, error: UserError) -> Finding:
    return Finding('error', part.where, f'{path} {error}: replace it, or remove it and its annotation')


def is_numbers(values: object, count: int) -> TypeGuard[list[float]]:
    """Whether a value is a list of so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and np.isfinite(value) for value in values)
    )


OBJECT_RULES = (check_images, check_categories, check_boxes, check_areas, check_masks, check_pixels)


def check_coco(part: Part, rules: tuple = OBJECT_RULES) -> Iterator[Finding]:
    """Read a data set's annotation file, and go through the rules for it."""
    path = part.dataset.ann_file
    yield Finding('info', part.where, f'reading {path} ({os.path.getsize(path) / 1e6:,.0f} MB)')
    try:
        coco = read_coco(part)
    except UserError as error:
        yield Finding('error', part.where, str(error))
        return
    for rule in rules:
        yield from rule(part, coco)
