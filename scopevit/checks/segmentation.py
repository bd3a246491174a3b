"""Rules for label maps, which mmseg reads."""

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from ..utils.errors import UserError, one_line
from ..utils.image import read_header, require_file
from .findings import Finding, faulty, first
from .images import MOST_HEADERS, check_files, check_passed_over, read_as_loaded, spread
from .part import Part
from .paths import check_image_count, exists

MOST_CLASSES = 255  # that 8 bits hold beside 255, which is ignored
MOST_FORMS = 2000  # label maps whose first bytes are read
OF_8_BITS = ('1', 'L', 'P')  # modes of Pillow's
MOST_MAPS = 500  # label maps that are opened to find classes that the sample does not have
MOST_MAPS_AT_START = 16  # label maps that are opened before a training


def check_segmentation(part: Part) -> Iterator[Finding]:
    """Images and label maps are there, and a sample of them is sound."""
    dataset, items = part.dataset, part.dataset.load_data_list()
    folder = dataset.data_prefix.get('img_path', '')
    if items:
        yield from check_image_count(part.where, type(dataset).__name__, folder, len(items))
    else:
        yield part.error(f'no file of {folder} ends with {dataset.img_suffix}: set img_suffix of the data set')
    for key, what in (('img_path', 'images'), ('seg_map_path', 'label maps')):
        missing = [item[key] for item in items if item.get(key) and not exists(item[key])]
        remedy = 'unpack them again, or remove their counterparts'
        yield from faulty(part.where, missing, len(items), f'{what} do not exist', remedy, is_fatal=True)
        gone = set(missing)
        items = [item for item in items if item.get(key) not in gone]
    yield from check_folder(part)
    yield from check_files(part, items)
    yield from check_forms(part, items)
    yield from check_map_sizes(part, items)
    seen: set[int] = set()
    for item in part.choose(items):
        yield from check_label_map(part, item, seen)
    yield from check_occurring(part, items, seen)
    ignored = {dataset.ignore_index} | ({0, 255} if dataset.reduce_zero_label else set())
    if seen and seen <= ignored:
        yield part.error('all pixels of the label maps that were opened are ignored: check the labels')


def check_folder(part: Part) -> Iterator[Finding]:
    """All images of a folder are used, whatever their suffix."""
    dataset = part.dataset
    folder, maps = dataset.data_prefix.get('img_path'), dataset.data_prefix.get('seg_map_path')
    if not folder or (dataset.ann_file and not os.path.isdir(dataset.ann_file)):  # a list says which
        return

    def is_used(path: str) -> bool:
        is_map = bool(maps) and path.endswith(dataset.seg_map_suffix) and path.startswith(maps)
        return is_map or path.endswith(dataset.img_suffix)

    remedy = f'img_suffix of the data set is {dataset.img_suffix}; give all images one suffix'
    yield from check_passed_over(part, folder, is_used, remedy)


def check_forms(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """Label maps have one channel of 8 bits, and the classes fit into these."""
    loaders = [transform for transform in part.transforms if type(transform).__name__ == 'LoadAnnotations']
    if not loaders:  # they are read in a way of their own
        return
    classes = part.dataset.metainfo.get('classes') or ()
    if len(classes) > MOST_CLASSES:
        text = f'there are {len(classes)} classes, but label maps are read with 8 bits, which hold {MOST_CLASSES}'
        yield part.error(f'{text}: join some')
    wrong: dict[str, list[str]] = {}
    chosen = spread([item['seg_map_path'] for item in items if item.get('seg_map_path')], MOST_FORMS)
    for path in chosen:
        fault = _fault_of_form(path, getattr(loaders[0], 'imdecode_backend', 'pillow'))
        if fault:
            wrong.setdefault(fault, []).append(path)
    for fault, paths in wrong.items():
        yield part.error(f'label map {paths[0]} {fault} ({len(paths)} of {len(chosen)} looked at)')


def check_map_sizes(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """Label maps are as large as their images, by the headers of both; turned images have a rule of their own."""
    wrong = []
    chosen = spread([item for item in items if item.get('seg_map_path')], max(MOST_HEADERS, part.sample))
    for item in chosen:
        image, labels = read_header(item['img_path']), read_header(item['seg_map_path'])
        if image and labels and image.orientation == 1 and image.size != labels.size:
            (w, h), (width, height) = labels.size, image.size
            wrong.append(f'{item["seg_map_path"]} has {w}x{h} pixels, but its image {width}x{height}')
    if wrong:
        yield part.error(f'label map {wrong[0]} ({len(wrong)} of {len(chosen)} looked at): make them agree')


def _fault_of_form(path: str, backend: str) -> str | None:
    """Why a label map cannot be read as class numbers of 8 bits; None if it can, or cannot be opened at all."""
    header = read_header(path)
    if header is None:
        return None
    if header.mode not in ('1', 'L', 'P', 'F') and not header.mode.startswith('I'):
        return (
            f'is {header.mode}, but must have one channel whose values are class numbers: convert the colours to class '
            'numbers'
        )
    if header.mode == 'P' and backend == 'cv2':
        return "has a palette, whose colours imdecode_backend='cv2' would read: set imdecode_backend='pillow'"
    labels = None if header.mode in OF_8_BITS else _read_map(path)
    if labels is None or isinstance(labels, str):  # which is told when it is read
        return None
    values = np.unique(labels)
    cut = values[(values < 0) | (values > 255) | (values != np.floor(values))]
    if not cut.size:
        return None
    return (
        f'has the value {cut[0]:g}, but is read with 8 bits, where that is {int(cut[0]) % 256}: number the classes '
        f'from 0 to at most {MOST_CLASSES - 1}, and ignored pixels 255'
    )


def check_occurring(part: Part, items: Sequence[dict], seen: set[int]) -> Iterator[Finding]:
    """Each class occurs in some label map; ``seen`` are the values of a sample, to which those of more are added."""
    dataset, numbers = part.dataset, _numbers(part.dataset)
    if not part.is_learnt or not seen or len(numbers) < 2:
        return
    # Decoding takes time: no more maps are opened than until each class was seen.
    paths = spread([item['seg_map_path'] for item in items if item.get('seg_map_path')], MOST_MAPS)
    for path in paths:
        if set(numbers) <= seen:
            return
        values = _values(path)
        if values is None:
            return
        seen |= values
    # Values are those of the files, classes those after renumbering.
    classes = list(dataset.metainfo['classes'])
    there = {new for old, new in numbers.items() if old in seen}
    lacking = [name for i, name in enumerate(classes) if i not in there]
    if not lacking or not there:
        return
    text = f'{len(lacking)} of {len(classes)} classes occur in none of {len(paths)} label maps ({first(lacking)})'
    # One class alone is most often a mask of 0 and 255, of which 255 is ignored.
    if len(there) == 1:
        text += f': one class is all there is to learn; the maps have the values {first(sorted(seen))}'
        yield part.warning(f'{text}, {_counting(dataset)}')
    # Of a toolbox's own classes, or where not all maps were opened, a rare one may well be elsewhere.
    elif classes == list(type(dataset).METAINFO.get('classes', ())) or len(paths) == MOST_MAPS:
        yield part.note(text)
    else:
        yield part.warning(f'{text}: leave them out of metainfo.classes, or label them')


def check_one_class(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """A few label maps have two classes or more; of one alone nothing is learnt, though the loss falls."""
    dataset, numbers = part.dataset, _numbers(part.dataset)
    paths = spread([item['seg_map_path'] for item in items if item.get('seg_map_path')], MOST_MAPS_AT_START)
    found = [values for values in map(_values, paths) if values is not None] if part.is_learnt else []
    seen = set().union(*found)
    there = {new for old, new in numbers.items() if old in seen}
    if found and len(numbers) > 1 and len(there) < 2:
        what = f'no other class than {dataset.metainfo["classes"][there.pop()]}' if there else 'none of the classes'
        yield part.warning(
            f'{len(found)} label maps that were looked at have {what}; if all are so, nothing is learnt: their '
            f'values are {first(sorted(seen))}, {_counting(dataset)}; check_dataset.py looks at more of them'
        )


def _counting(dataset: BaseDataset) -> str:
    """Which values the classes have."""
    if dataset.reduce_zero_label:
        return 'classes are 1, 2, ... (0 and 255 are ignored, by reduce_zero_label)'
    return f'classes are 0, 1, ... (and {dataset.ignore_index} for ignored pixels)'


def _numbers(dataset: BaseDataset) -> dict[int, int]:
    """The class of each value that may stand in a label map."""
    classes = dataset.metainfo.get('classes') or ()
    if isinstance(classes, str):
        return {}
    shift = int(bool(dataset.reduce_zero_label))
    if dataset.label_map:  # old labels are renumbered, those of no class become ignored
        return {old + shift: new for old, new in dataset.label_map.items() if new in range(len(classes))}
    return {number + shift: number for number in range(len(classes))}


def _values(path: str) -> set[int] | None:
    """The values of a label map; None if it has another form or cannot be read, which is told elsewhere."""
    header = read_header(path)
    labels = None if header is None or header.mode not in OF_8_BITS else _read_map(path)
    return None if labels is None or isinstance(labels, str) else set(np.unique(labels).tolist())


def _read_map(path: str) -> np.ndarray | str:
    """A label map as it is stored, or why it cannot be read."""
    try:
        require_file(path)
        with Image.open(path) as file:
            return np.asarray(file)
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever a decoder says of damaged data
        return f'cannot be decoded ({one_line(error)}): unpack it again'


def check_label_map(part: Part, item: dict, seen: set[int]) -> Iterator[Finding]:
    """An image and its label map can be read, and have no unknown class.

    Args:
        seen: To it the values of the map are added.
    """
    image, path = read_as_loaded(part, item['img_path']), item.get('seg_map_path')
    if isinstance(image, Finding):
        yield image
    if not path:
        return
    labels = _read_map(path)
    if isinstance(labels, str):
        yield part.error(f'label map {path} {labels}')
        return
    if labels.ndim != 2:  # which its header says
        return
    values = {int(value) for value in np.unique(labels).tolist() if math.isfinite(value)}
    seen |= values
    highest, ignored = _highest_value(part), part.dataset.ignore_index
    wrong = sorted(value for value in values if highest < value < 255 and value != ignored)
    if wrong and highest >= 0:
        yield part.error(
            f'label map {path} has the values {first(wrong)}, but the classes of the config go from 0 to {highest} '
            f'(and {ignored} for ignored pixels): set metainfo.classes and num_classes, or correct the labels'
        )


def _highest_value(part: Part) -> int:
    """The highest class number that may stand in a label map, -1 if that is not known."""
    dataset = part.dataset
    # Old labels are renumbered to those of the wanted classes.
    classes = type(dataset).METAINFO['classes'] if dataset.label_map else dataset.metainfo.get('classes') or ()
    return len(classes) - (0 if dataset.reduce_zero_label else 1)
