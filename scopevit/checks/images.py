"""Rules for image files of any data set: what they hold and what becomes of it when they are read, by a sample."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ..utils.errors import UserError
from ..utils.image import SUFFIXES, lost_depth, read_header, read_image
from .findings import Finding, faulty, first
from .part import Part
from .paths import exists, is_odd

MOST_HEADERS = 200  # files whose first bytes are read
MOST_DECODED = 16  # images that are decoded, of formats that hold more than 8 bits
MOST_LISTED = 20_000  # files of a folder that are looked at for their names
TURNED = ('color', 'grayscale')  # ways of reading, as mmcv calls them, that turn an image as its EXIF says
READ = (('LoadImageFromFile', 'img_path', 'images'), ('LoadAnnotations', 'seg_map_path', 'label maps'))
TOOLBOXES = ('mmcv.', 'mmdet.', 'mmpose.', 'mmpretrain.', 'mmseg.')
SHALLOW = ('.jpg', '.jpeg', '.webp', '.gif')  # have 8 bits

Item = TypeVar('Item')


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def color_type(part: Part) -> str | None:
    """How a data set's pipeline reads images, as mmcv calls it; None if it is done in another way."""
    loader = _toolbox_loader(part, 'LoadImageFromFile')
    if loader is None or getattr(loader, 'imdecode_backend', 'cv2') == 'tifffile':
        return None
    return getattr(loader, 'color_type', 'color')


def _toolbox_loader(part: Part, name: str) -> object | None:
    """The transform of a data set's pipeline that reads files as the toolboxes' ``name`` does, if one does."""
    for transform in part.transforms:
        kind = type(transform)
        if any(base.__name__ == name for base in kind.__mro__):
            return transform if kind.transform.__module__.startswith(TOOLBOXES) else None
    return None


def check_there(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """The images and label maps of some items exist, if the data set's pipeline reads them from the file system."""
    for name, key, what in READ:
        loader = _toolbox_loader(part, name)
        if loader is None or not _reads_files(loader):
            continue
        paths = list(dict.fromkeys(item[key] for item in items if isinstance(item.get(key), str)))
        # Names that other rules are about are left to them.
        missing = [path for path in paths if not exists(path) and '\\' not in path and not is_odd(path)]
        remedy = 'correct data_root or data_prefix, unpack them again, or take out what names them'
        yield from faulty(part.where, missing, len(paths), f'{what} looked for do not exist', remedy, is_fatal=True)


def _reads_files(loader: object) -> bool:
    """Whether a transform reads the file that a path names, not from a store elsewhere, and fails without it."""
    stores = [
        (getattr(loader, key, None) or {}).get('backend', 'local') for key in ('backend_args', 'file_client_args')
    ]
    return set(stores) == {'local'} and getattr(loader, 'with_seg', True) and not getattr(loader, 'ignore_empty', False)


def check_files(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """Images are files, read with all their depth, and turned as their annotations are.

    Args:
        items: ``img_path`` of each, and ``seg_map_path``, or ``width`` and ``height``, if there are such.
    """
    items = [item for item in items if isinstance(item.get('img_path'), str)]
    paths = [item[key] for item in spread(items, MOST_HEADERS) for key in ('img_path', 'seg_map_path') if item.get(key)]
    odd = [path for path in paths if is_odd(path)]
    yield from faulty(part.where, odd, len(paths), 'names are not those of files', 'correct them', is_fatal=True)
    reading = color_type(part)
    if reading in (*TURNED, 'color_ignore_orientation', 'grayscale_ignore_orientation'):
        yield from check_depth(part, [item['img_path'] for item in items])
    if reading in TURNED:
        yield from check_orientation(part, items)


def read_as_loaded(part: Part, path: str) -> np.ndarray | Finding:
    """An image, turned if the data set's pipeline turns it; if it cannot be read, what is wrong with it."""
    try:
        return read_image(path, turned=color_type(part) in TURNED, any_depth=True)
    except UserError as error:
        return part.error(f'{path} {error}: replace it, or remove it and its annotation')


def check_depth(part: Part, paths: Sequence[str]) -> Iterator[Finding]:
    """8 bits hold the images: of 16 bits the toolboxes keep the upper 8, of fractions nothing."""
    dark: list[str] = []
    fractions: list[str] = []
    bright = 0
    for path in spread([path for path in paths if not path.lower().endswith(SHALLOW)], MOST_DECODED):
        try:
            image = read_image(path, channels=None, any_depth=True)
        except UserError:  # which other rules and the training tell
            continue
        loss = lost_depth(image)
        if loss is not None:
            (dark if image.dtype == np.uint16 else fractions).append(f'{path} {loss}')
        elif image.dtype != np.uint8 and image.any():
            bright += 1
    remedy = (
        'convert the images of all splits, and those to be predicted, to 8 bits by one scale, or read them as stored '
        "with color_type='unchanged', to_float32=True in LoadImageFromFile and mean and std to fit"
    )
    if fractions or (dark and not bright):
        yield part.error(f'{(fractions or dark)[0]}: {remedy}')
    elif len(dark) > bright:  # a few dark images among others are no fault
        yield part.warning(
            f'{dark[0]} ({len(dark)} of the {len(dark) + bright} images of 16 bits looked at): if they are not just '
            f'dark, {remedy}'
        )


def check_orientation(part: Part, items: Sequence[dict]) -> Iterator[Finding]:
    """Images that are turned when they are read, as their EXIF says, have annotations of the turned image."""
    wrong, unsure, turned = [], [], []
    chosen = spread(items, MOST_HEADERS)
    for item in chosen:
        header = read_header(item['img_path'])
        if header is None or header.orientation == 1:
            continue
        turned.append(item['img_path'])
        labelled = _labelled_size(item)
        if labelled is None:
            continue
        # Turned by 180 degrees, or square, an image has the same size either way.
        if header.upright == header.size:
            unsure.append(item['img_path'])
        elif labelled == header.size:
            wrong.append(item['img_path'])
    # Only what is wrong for certain is an error; where nothing is, a note tells that images are turned.
    remedy = (
        "save the images upright (ImageMagick's mogrify -auto-orient), or read them as stored with "
        "color_type='color_ignore_orientation' in LoadImageFromFile"
    )
    what = f'of {len(chosen)} images looked at are turned when they are read, as their EXIF says'
    if wrong:
        yield part.error(f'{len(wrong)} {what}, but their annotations are not ({first(wrong)}): {remedy}')
    if unsure:
        yield part.warning(
            f'{len(unsure)} {what} ({first(unsure)}); whether their annotations are of the turned images their size '
            f'does not tell: look with browse_dataset.py, and if not, {remedy}'
        )
    if turned and not wrong and not unsure:
        yield part.note(f'{len(turned)} {what} ({first(turned)})')


def _labelled_size(item: dict) -> tuple[Any, Any] | None:
    """Width and height of what an image is annotated with; None if it is the same for an image that is turned."""
    if item.get('seg_map_path'):
        header = read_header(item['seg_map_path'])
        return header.size if header is not None else None
    return (item['width'], item['height']) if 'width' in item and 'height' in item else None


def check_passed_over(part: Part, folder: str, is_used: Callable[[str], bool], remedy: str) -> Iterator[Finding]:
    """No image of a folder is passed over because of what its name ends with.

    Args:
        is_used: Says of a file's name whether it is taken.
    """
    others: Counter[str] = Counter()
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            count += 1
            suffix = os.path.splitext(name)[1]
            if suffix.lower() in SUFFIXES and not name.startswith('.') and not is_used(os.path.join(parent, name)):
                others[suffix] += 1
        if count > MOST_LISTED:
            break
    if others:
        found = ', '.join(f'{n} {suffix}' for suffix, n in others.most_common())
        text = f'{others.total()} images of {folder} are passed over because of their suffix ({found}): {remedy}'
        yield part.warning(text)
