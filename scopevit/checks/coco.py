"""Rules for annotations of objects in COCO's form, which mmdet and mmpose read."""

import os
from collections import Counter
from collections.abc import Iterator

from ..utils.errors import UserError
from .classes import check_names_are_listed, class_heads, metainfo
from .coco_file import CocoFile, is_numbers, read_coco
from .findings import Finding, faulty, first
from .images import check_files, read_as_loaded
from .part import Part
from .paths import check_image_count, exists, is_odd

MOST_PIXELS_AWAY = 1e6  # from an image's corner a coordinate is a mistake


def check_images(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """All images are there, each once."""
    yield from check_image_count(part.where, 'CocoDataset', coco.path, len(coco.files))
    if len(coco.files) < coco.images:
        yield part.error(f'image ids in {coco.path} are not unique: number them again')
    missing = [file for file in coco.files.values() if not exists(file) and '\\' not in file and not is_odd(file)]
    remedy = 'unpack them again, or remove them from the annotation file'
    yield from faulty(part.where, missing, len(coco.files), 'images do not exist', remedy, is_fatal=True)


def check_left_out(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Which images mmdet does not train with: those without objects of the classes, and small ones."""
    settings = {} if part.dataset.test_mode else part.dataset.filter_cfg or {}
    classes = part.dataset.metainfo.get('classes')
    classes = classes if isinstance(classes, (list, tuple)) else ()
    ids = {category['id'] for category in coco.categories if category['name'] in classes}
    used = {annotation['image_id'] for annotation in coco.annotations if annotation['category_id'] in ids}
    least = settings.get('min_size', 0)
    empty = [file for i, file in coco.files.items() if settings.get('filter_empty_gt') and i not in used]
    small = [file for i, file in coco.files.items() if min(coco.sizes[i]) < least]
    for files, why, setting in (
        (empty, 'have no object of the classes', 'filter_empty_gt=False'),
        (small, f'are less than {least} pixels wide or high', 'min_size=0'),
    ):
        if files and ids:
            yield part.note(
                f'{len(files)} of {len(coco.files)} images {why} and are left out of the training ({first(files)}); '
                f'filter_cfg=dict({setting}) of the data set keeps them'
            )


def check_names(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Names of files are paths below the folder of images, written with /."""
    suspects = [file for file in coco.files.values() if '\\' in file or '://' in file or file.startswith(('/', '.'))]
    odd = [file for file in suspects if is_odd(file) or ('\\' in file and not exists(file))]
    remedy = 'write file_name with / between folders, below the folder of images'
    yield from faulty(part.where, odd, len(coco.files), 'file names are no paths of files', remedy, is_fatal=True)


def check_categories(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """The classes are categories of the file, in its order: mmdet finds them by name and drops all others' objects."""
    classes = part.dataset.metainfo.get('classes') or []
    problems = [*check_names_are_listed(part.where, classes), *_check_mixed_up(part, coco)]
    if problems:
        yield from problems
        return
    # mmdet numbers the labels in the order of the file, whatever the order of the classes.
    in_file = [category['name'] for category in coco.categories]
    labels = part.notes['labels'] = [name for name in in_file if name in classes]
    if labels:
        yield from _check_order(part, coco, labels)
        yield from _check_occurring(part, coco)
        return
    heads = [key for key, count in class_heads(part.model).items() if count != len(in_file)]
    number = f', and num_classes={len(in_file)} in {" and ".join(heads)}' if heads else ''
    yield part.error(
        f'none of the classes of the config ({first(classes)}) is a category of {coco.path}: write '
        f'{metainfo(in_file)} in the data sets{number}'
    )


def _check_mixed_up(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """No two categories have one name or id."""
    for key, called in (('name', 'are called'), ('id', 'have the id')):
        for value, count in Counter(category[key] for category in coco.categories).most_common(1):
            if count > 1:
                what = f'{count} categories of {coco.path} {called} {value}'
                yield part.error(f'{what}: mmdet would mix them up, rename or join them')


def _check_order(part: Part, coco: CocoFile, labels: list[str]) -> Iterator[Finding]:
    """The classes are those of the labels, in their order."""
    classes = part.dataset.metainfo['classes']
    i = next((i for i, (a, b) in enumerate(zip(labels, classes)) if a != b), None)
    if i is not None:
        yield part.warning(
            f'the categories of {coco.path} are not in the order of the classes of the config: label {i} would be '
            f'called {classes[i]} but be {labels[i]}: put the classes in the order of the file'
        )
    elif len(labels) < len(classes):
        lacking = [name for name in classes if name not in labels]
        text = f'{coco.path} has only {len(labels)} of the {len(classes)} classes of the config, not {first(lacking)}'
        if part.is_learnt:
            yield part.note(f'{text}; compare metainfo.classes with its categories, if that is not meant')
        else:
            remedy = 'list them among its categories, even if it has none of their objects'
            yield part.warning(f'{text}: predictions of those cannot be evaluated; {remedy}')


def _check_occurring(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Which classes have no objects, and which objects no class."""
    classes = part.dataset.metainfo['classes']
    used = Counter(annotation['category_id'] for annotation in coco.annotations)
    unused = [c['name'] for c in coco.categories if c['name'] in classes and not used[c['id']]]
    if unused and part.is_learnt:
        yield part.note(f'there are no objects of {len(unused)} classes ({first(unused)})')
    others = {c['name']: used[c['id']] for c in coco.categories if c['name'] not in classes and used[c['id']]}
    if others:
        yield part.note(
            f'{sum(others.values())} objects are of categories that the config does not have ({first(list(others))}); '
            'they are passed over in training'
        )


def check_boxes(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Ids, categories and boxes are sound."""
    names = {category['id'] for category in coco.categories}
    strange, unknown, malformed, empty, outside = [], [], [], [], []
    for annotation in coco.annotations:
        name, box = coco.name(annotation), annotation.get('bbox')
        if annotation['image_id'] not in coco.sizes:
            strange.append(f'{name}: image {annotation["image_id"]}')
            continue
        if annotation['category_id'] not in names:
            unknown.append(f'{name}: category {annotation["category_id"]}')
        if box is None and part.dataset.metainfo.get('num_keypoints'):
            continue  # mmpose passes over such people
        if not is_numbers(box, 4) or max(map(abs, box)) > MOST_PIXELS_AWAY:
            malformed.append(f'{name}: bbox {str(box)[:60]}')
            continue
        (x, y, w, h), (width, height) = box, coco.sizes[annotation['image_id']]
        if min(w, h) <= 0:
            empty.append(f'{name}: bbox {box}')
        elif min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            outside.append(f'{name}: bbox {box} in {width}x{height}')
    total = len(coco.annotations)
    if not total:
        text = f'{coco.path} has no annotations'
        yield part.error(text) if part.is_learnt else part.note(text)
    for items, what, remedy, is_fatal in (
        (strange, 'annotations are of images that the file does not list', 'remove them', False),
        (unknown, 'category ids are not among the categories of the file', 'correct the ids', False),
        (malformed, 'boxes are not [x, y, width, height] in numbers', 'correct or remove them', True),
        (empty, 'boxes have no area', 'correct or remove them', False),
        (outside, 'boxes reach outside the image', 'cut them off at the edges (are they x, y, x, y?)', False),
    ):
        yield from faulty(part.where, items, total, what, remedy, is_fatal)


def check_ids(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Annotations are told apart by their ids; the evaluation takes 0 for none, and computes with them."""
    ids, total = Counter(a['id'] for a in coco.annotations), len(coco.annotations)
    twice = [f'{number}, {count} times' for number, count in ids.items() if count > 1]
    remedy = 'number them again, from 1'
    yield from faulty(part.where, twice, total, f'annotation ids in {coco.path} are not unique', remedy, is_fatal=True)
    if not part.is_learnt:
        for what, those in (
            ('image', list(coco.files)),
            ('category', [category['id'] for category in coco.categories]),
        ):
            if len({isinstance(number, str) for number in those}) > 1:
                text = f'some {what} ids in {coco.path} are numbers, others texts, which cannot be sorted: {remedy}'
                yield part.error(text)
        odd = [repr(number) for number in ids if not is_numbers([number], 1) or number == 0]
        what = f'annotation ids in {coco.path} are 0 or no numbers, which cannot be evaluated'
        yield from faulty(part.where, odd, total, what, remedy, is_fatal=True)


def check_crowds(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Crowds are marked by 0 or 1, in a validation of boxes each object."""
    is_needed = not part.is_learnt and not part.dataset.metainfo.get('num_keypoints')  # mmpose takes none for 0
    lacking = [] if not is_needed else [coco.name(a) for a in coco.annotations if 'iscrowd' not in a]
    odd = [f'{coco.name(a)}: {str(a["iscrowd"])[:60]!r}' for a in coco.annotations if a.get('iscrowd', 0) not in (0, 1)]
    total = len(coco.annotations)
    what = 'objects have no iscrowd, without which they cannot be evaluated'
    yield from faulty(part.where, lacking, total, what, 'set iscrowd to 0', is_fatal=True)
    yield from faulty(part.where, odd, total, 'objects have an iscrowd that is not 0 or 1', 'correct it', is_fatal=True)


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
    missing, lines, malformed = [], [], []
    for annotation in coco.annotations:
        mask, size = annotation.get('segmentation'), coco.sizes.get(annotation['image_id'])
        if mask and size and not _is_mask(mask, *size):
            malformed.append(f'{coco.name(annotation)}, an object in {coco.files[annotation["image_id"]]}')
        elif not (mask.get('counts') and mask.get('size') if isinstance(mask, dict) else mask):
            file = coco.files.get(annotation['image_id'], 'no image')
            missing.append(f'{coco.name(annotation)}, an object in {file}')
        elif isinstance(mask, list) and not any(_is_polygon(polygon) for polygon in mask):
            lines.append(coco.name(annotation))
    remedy = 'the model learns masks: draw or remove those objects, or train a model of boxes alone'
    total = len(coco.annotations)
    yield from faulty(part.where, missing, total, 'masks are missing', remedy, is_fatal=True)
    what = 'masks are neither polygons in numbers nor RLE of the size of their image'
    yield from faulty(part.where, malformed, total, what, 'correct or remove them', is_fatal=True)
    yield from faulty(part.where, lines, total, 'masks have fewer than three points', remedy)


def _loads_masks(part: Part) -> bool:
    return any(getattr(transform, 'with_mask', False) for transform in part.transforms)


def _is_mask(mask: object, width: float, height: float) -> bool:
    """Whether a mask can be decoded: polygons of any length, or RLE of an image's pixels."""
    if isinstance(mask, list):
        return all(
            isinstance(points, list)
            and is_numbers(points, len(points))
            and max(map(abs, points), default=0) <= MOST_PIXELS_AWAY
            for points in mask
        )
    if not isinstance(mask, dict) or mask.get('size') != [height, width]:
        return False
    counts = mask.get('counts')
    if isinstance(counts, list):
        return is_numbers(counts, len(counts)) and min(counts, default=0) >= 0 and sum(counts) == width * height
    return isinstance(counts, str)


def _is_polygon(points: object) -> bool:
    """Whether it has three points, fewer of which mmdet does not take."""
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0


def check_pixels(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """A sample of images can be read, and has the size that the file says and masks with pixels."""
    by_image: dict[object, list[dict]] = {}
    if _loads_masks(part):
        for annotation in coco.annotations:
            by_image.setdefault(annotation['image_id'], []).append(annotation)
    for i in part.choose(i for i, file in coco.files.items() if os.path.isfile(file)):
        width, height = coco.sizes[i]
        image = read_as_loaded(part, coco.files[i])
        if isinstance(image, Finding):
            yield image
            continue
        if image.shape[:2] != (height, width):
            yield part.error(
                f'{coco.files[i]} has {image.shape[1]}x{image.shape[0]} pixels, but {coco.path} says {width}x{height}: '
                'correct the annotation file (a photograph turned by its EXIF is read upright)'
            )
            continue
        for annotation in by_image.get(i, []):
            if annotation.get('segmentation') and not _has_pixels(annotation['segmentation'], width, height):
                yield part.warning(
                    f'the mask of {coco.name(annotation)} has no pixels in its image of {width}x{height}, or is of '
                    'another size: draw it again or remove it'
                )


def _has_pixels(mask: object, width: int, height: int) -> bool:
    """Whether a mask covers something of an image, and is of its size."""
    from pycocotools import mask as masks

    if not _is_mask(mask, width, height):
        return False
    try:
        is_encoded = isinstance(mask, dict) and isinstance(mask.get('counts'), str)
        encoded = mask if is_encoded else masks.frPyObjects(mask, height, width)
        encoded = masks.merge(encoded) if isinstance(encoded, list) else encoded
        return bool(masks.area(encoded) > 0) and list(encoded['size']) == [height, width]
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError):
        return False  # pycocotools cannot read it, which it says in one of these ways


def check_image_files(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """What :mod:`images` asks of any images."""
    yield from check_files(
        part, [dict(img_path=path, width=coco.sizes[i][0], height=coco.sizes[i][1]) for i, path in coco.files.items()]
    )


# Those that read nothing but the annotation file and the headers of some images come before a training.
QUICK_RULES = (
    check_names, check_categories, check_ids, check_boxes, check_areas, check_crowds, check_masks, check_image_files
)  # fmt: skip
OBJECT_RULES = (check_images, *QUICK_RULES, check_left_out, check_pixels)


def check_coco(part: Part, rules: tuple = OBJECT_RULES) -> Iterator[Finding]:
    """Read a data set's annotation file, and go through the rules for it."""
    path = part.dataset.ann_file
    if not os.path.isfile(path):
        yield part.error(f'{path} is no file: name an annotation file in JSON')
        return
    yield part.info(f'reading {path} ({os.path.getsize(path) / 1e6:,.0f} MB)')
    try:
        coco = read_coco(part)
    except UserError as error:
        yield part.error(str(error))
        return
    for rule in rules:
        yield from rule(part, coco)
