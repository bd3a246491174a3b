"""Boxes in Pascal VOC's XML or YOLO's text files, turned into one annotation file in COCO's format."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..utils.errors import UserError
from ..utils.image import SUFFIXES, read_header

TOLERATED = 1.5  # pixels beyond an edge, by rounding or by counting pixels from 1
MOST_TOLD = 5  # faults
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')  # in Pascal VOC's files
# What may be wrong with boxes.
UNKNOWN = '--classes does not name {labels}: add them, in one order for all splits'
FLAT = '{count} boxes have no area ({places}): correct or remove them'
OUTSIDE = '{count} boxes reach outside their image ({places}): correct them, or add --clip'


@dataclass(frozen=True)
class Box:
    """One object of an image.

    Attributes:
        place: File and number of the object, for messages.
        label: Name of its class; of YOLO its number.
        corners: Left, top, right and bottom in pixels.
    """

    place: str
    label: str | int
    corners: tuple[float, float, float, float]


def read_voc(path: Path, size: tuple[int, int]) -> Iterator[Box]:
    """The boxes of a file of Pascal VOC's, whose edges are taken as they are.

    Raises:
        UserError: If it is no such file.
    """
    try:
        objects = list(ElementTree.parse(path).getroot().iter('object'))
    except (ElementTree.ParseError, OSError, UnicodeError, ValueError) as error:
        raise UserError(f'{path} cannot be read as XML') from error
    for i, found in enumerate(objects, 1):
        place, name = f'{path}, object {i}', (found.findtext('name') or '').strip()
        try:
            left, top, right, bottom = (float(found.findtext(f'bndbox/{side}') or '') for side in SIDES)
        except ValueError:
            name = ''
        if not name:
            raise UserError(f'{place} has no name, or no bndbox with xmin, ymin, xmax and ymax')
        yield Box(place, name, (left, top, right, bottom))


def read_yolo(path: Path, size: tuple[int, int]) -> Iterator[Box]:
    """The boxes of a file of YOLO's: class, centre, width and height, in fractions of the image's ``size``.

    Raises:
        UserError: If it is no such file.
    """
    width, height = size
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f'{path} cannot be read as text') from error
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f'{path}, line {i}'
        try:
            label, *numbers = line.split()
            x, y, w, h = map(float, numbers)
            corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
            yield Box(place, int(label), corners)
        except ValueError:
            raise UserError(
                f'{place} is not "class x y width height", in fractions of the image: {line[:60]}'
            ) from None


READERS = {'.xml': read_voc, '.txt': read_yolo}


def find_pairs(images: str, labels: str) -> list[tuple[Path, Path | None]]:
    """The images of a folder, each with its file of boxes in another, or None: an image without objects.

    Raises:
        UserError: If there are no images or no files of boxes, files of both kinds, one without its image, or two
            images of one name.
    """
    found = {path.relative_to(images): path for path in sorted(Path(images).rglob('*')) if _is_image(path)}
    if not found:
        raise UserError(f'there are no images in {images}; known are {" ".join(SUFFIXES)}')
    files = [path for path in sorted(Path(labels).rglob('*')) if path.suffix in READERS and path.name != 'classes.txt']
    kinds = {path.suffix for path in files}
    if len(kinds) != 1:
        instead = 'files of both kinds' if kinds else 'neither'
        raise UserError(f"{labels} should hold Pascal VOC's .xml or YOLO's .txt, but has {instead}")
    stems = Counter(path.with_suffix('') for path in found)
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if twice is not None:
        raise UserError(f'{images} has several images called {twice}; one file of boxes cannot be for both')
    boxes = {path.relative_to(labels).with_suffix(''): path for path in files}
    lonely = [str(path) for stem, path in boxes.items() if stem not in stems]
    if lonely:
        raise UserError(f'{_told(lonely)}: no image of that name in {images}; add it, or remove the file of boxes')
    return [(path, boxes.get(name.with_suffix(''))) for name, path in found.items()]


def to_coco(images: str, labels: str, classes: Sequence[str], clip: bool = False) -> dict:
    """The content of an annotation file in COCO's format.

    Args:
        images: Folder of the images, with the folders in it.
        labels: Folder of their boxes, with the same names.
        classes: Names of the classes. YOLO's numbers count them from 0; other names in Pascal VOC's files are refused.
        clip: Cut boxes off at the edges of their image, and leave out those that are outside.

    Raises:
        UserError: If images or files are missing or cannot be read, a class is unknown, or a box has no area or,
            without ``clip``, reaches outside its image.
    """
    entries: list[dict] = []
    annotations: list[dict] = []
    faults: dict[str, list[Box]] = defaultdict(list)
    for image, path in find_pairs(images, labels):
        header = read_header(str(image))
        if header is None:
            raise UserError(f'{image} is not an image that can be read: replace it, or remove it and its boxes')
        width, height = header.size
        name = image.relative_to(images).as_posix()
        entries.append(dict(id=len(entries) + 1, file_name=name, width=width, height=height))
        for box in READERS[path.suffix](path, header.size) if path else ():
            # Faults are collected, so that one run tells all of them.
            fault = fault_of(box, width, height, classes, clip)
            if fault:
                faults[fault].append(box)
                continue
            # Without --clip only a rounding is cut off here; with it nothing may be left.
            left, top, right, bottom = box.corners
            x, y = max(left, 0), max(top, 0)
            w, h = min(right, width) - x, min(bottom, height) - y
            if w <= 0 or h <= 0:
                continue
            number, bbox = _number_of(box.label, classes), [round(value, 2) for value in (x, y, w, h)]
            of = dict(id=len(annotations) + 1, image_id=len(entries), category_id=number)
            annotations.append(dict(**of, iscrowd=0, area=round(w * h, 2), bbox=bbox))
    if faults:
        raise UserError('; '.join(_told_of(kind, faults[kind]) for kind in (UNKNOWN, FLAT, OUTSIDE) if kind in faults))
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    return dict(images=entries, annotations=annotations, categories=categories)


def fault_of(box: Box, width: int, height: int, classes: Sequence[str], clip: bool) -> str | None:
    """What is wrong with a box; None if nothing is."""
    left, top, right, bottom = box.corners
    if _number_of(box.label, classes) is None:
        return UNKNOWN
    if not all(map(math.isfinite, box.corners)) or right <= left or bottom <= top:
        return FLAT
    if not clip and max(-left, -top, right - width, bottom - height) > TOLERATED:
        return OUTSIDE
    return None


def _told_of(fault: str, boxes: Sequence[Box]) -> str:
    counts = Counter(box.label for box in boxes).most_common(20)
    labels = ', '.join(f'{label} ({count} objects)' for label, count in counts)
    return fault.format(labels=labels, count=len(boxes), places=_told([box.place for box in boxes]))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not os.path.basename(path).startswith('.')


def _number_of(label: str | int, classes: Sequence[str]) -> int | None:
    """The id of a category, from 1."""
    if isinstance(label, int):
        return label + 1 if 0 <= label < len(classes) else None
    return classes.index(label) + 1 if label in classes else None


def _told(items: Sequence[str]) -> str:
    return ', '.join(items[:MOST_TOLD]) + (', ...' if len(items) > MOST_TOLD else '')
