"""Reading images of any kind, naming those that cannot be read, and writing them as a whole."""

import functools
import math
import os
import re
import stat
import struct
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from .arguments import MOST_PIXELS
from .errors import UserError
from .files import write_whole

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.jp2')
"""Of files that are taken for images."""
_EXIF_ORIENTATION = 0x0112
# The toolboxes' transforms that read a file: what that is, and where its path stands in the item.
_READERS = {'LoadImageFromFile': ('image', 'img_path'), 'LoadAnnotations': ('label map', 'seg_map_path')}
# What decoders raise over damaged data.
_ERRORS = (OSError, AssertionError, ValueError, SyntaxError, struct.error, zlib.error, cv2.error)
# How Radiance's files, portable float and arbitrary maps, which OpenCV reads and Pillow does not, say their size.
_SIZE = re.compile(
    rb'#\?.*?-Y (\d+) \+X (\d+)\s|P[Ff]\s+(\d+)\s+(\d+)\s|P7\s.*?WIDTH (\d+)\s.*?HEIGHT (\d+)\s', re.DOTALL
)


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels are decoded.

    Attributes:
        size: Width and height as stored, before any turning.
        orientation: EXIF's, from 1 (as stored) to 8.
        mode: Pillow's name for its channels and depth, such as ``'RGB'``.
    """

    size: tuple[int, int]
    orientation: int
    mode: str

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once it is turned as its EXIF says."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_header(path: str) -> Header | None:
    """The header of an image file; None if there is no such file, or Pillow does not know its format."""
    if not os.path.isfile(path):
        return None
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter('ignore')
            orientation = opened.getexif().get(_EXIF_ORIENTATION, 1)
            return Header(opened.size, orientation if orientation in range(1, 9) else 1, opened.mode)
    except Exception:  # whatever a decoder says of damaged data, which is told when they are read
        return None


def require_file(path: str, most_bytes: float = float('inf')) -> None:
    """Make sure that a path is a file's, for a pipe would be waited for, and a device would never end.

    Raises:
        UserError: If it is not, or the file is larger.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UserError(f'cannot be read ({getattr(error, "strerror", None) or error})') from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError('is no file but a folder, a pipe or a device')
    if status.st_size > most_bytes:
        raise UserError(f'is larger than an image can be ({status.st_size / 1e9:,.1f} GB)')


def read_image(
    path: str,
    channels: int | None = 3,
    *,
    turned: bool = True,
    any_depth: bool = False,
    as_stored: bool = False,
    most_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """Read an image as the toolboxes' pipelines do.

    Args:
        channels: 3 for BGR, 1 for grey, into which any image is converted. Images of another number
            of channels have to be stored so. None: as many as are stored.
        turned: As its EXIF says.
        any_depth: Keep more than 8 bits.
        as_stored: Neither convert nor turn, and keep the depth: ``color_type='unchanged'``.
        most_pixels: How many are decoded at most.

    Returns:
        The image (H, W, channels), or (H, W) of one channel.

    Raises:
        UserError: If it cannot be read, is damaged or too large, has another number of channels, or
            8 bits would not hold its values.
    """
    require_file(path, most_bytes=max(16 * most_pixels, 2**24))
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
    if not data.size:
        raise UserError('is empty')
    is_known = _try_with_pillow(path, most_pixels)
    if not is_known and (said := _SIZE.match(data[: 2**16].tobytes())):
        _require_few(int(said[2] or said[3] or said[5]), int(said[1] or said[4] or said[6]), most_pixels)
    image = _read_with_opencv(data, channels, turned, as_stored)
    if image is None and is_known:
        image = _read_with_pillow(path, channels, turned)
    if image is None:
        raise UserError('is not an image that OpenCV or Pillow can read')
    found = 1 if image.ndim == 2 else image.shape[2]
    if channels is not None and found != channels:
        raise UserError(f'has {found} channels, but the model takes {channels}')
    if image.dtype == np.uint8 or any_depth or as_stored:
        return image
    return _cut(image)


def _read_with_opencv(data: np.ndarray, channels: int | None, turned: bool, as_stored: bool) -> np.ndarray | None:
    """An image with all its depth; None if OpenCV knows neither its format nor another number of channels of it."""
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels or 0)
    if as_stored or flags is None:
        return _decode(data, cv2.IMREAD_UNCHANGED)
    image = _decode(data, flags | cv2.IMREAD_ANYDEPTH | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION))
    if image is None:  # it cannot convert all of what it reads
        stored = _decode(data, cv2.IMREAD_UNCHANGED)
        if stored is not None and stored.dtype != np.uint8:
            image = np.dstack([stored] * channels) if stored.ndim == 2 and channels == 3 else stored
    return image


def _read_with_pillow(path: str, channels: int | None, turned: bool) -> np.ndarray:
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened) if turned else opened
        image = np.asarray(upright.convert('L' if channels == 1 else 'RGB'))
    return image if channels == 1 else np.ascontiguousarray(image[..., ::-1])


def _cut(image: np.ndarray) -> np.ndarray:
    """The upper 8 bits of 16."""
    loss = lost_depth(image)
    if loss:
        raise UserError(f'{loss}: convert it to 8 bits as the images of the training')
    return (image >> 8).astype(np.uint8)


def _try_with_pillow(path: str, most_pixels: int) -> bool:
    """Whether Pillow decodes an image; OpenCV fills what is missing of a truncated file with grey and says nothing."""
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter('ignore')
            _require_few(*opened.size, most_pixels)
            opened.load()
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        if most_pixels <= MOST_PIXELS:
            raise UserError(f'has more than {most_pixels:,} pixels') from error
        return False
    except UnidentifiedImageError:
        return False  # OpenCV reads some formats that Pillow does not
    except Exception as error:  # whatever a decoder says of damaged data
        raise UserError(f'is damaged ({error})') from error
    return True


def _require_few(width: int, height: int, most_pixels: int) -> None:
    if width * height > most_pixels:
        raise UserError(f'has more than {most_pixels:,} pixels ({width}x{height})')


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:  # sizes that OpenCV does not take, and damage in formats that Pillow does not know
        return None


@contextmanager
def unreadable_files_named() -> Iterator[None]:
    """Name the file over which an item of a data set cannot be loaded.

    Raises:
        UserError: In place of what one of the toolboxes' transforms raised that read an image or a label map.
    """
    try:
        yield
    except _ERRORS as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            kinds = {kind.__name__ for kind in type(frame.f_locals.get('self')).__mro__}
            item = frame.f_locals.get('results')
            for what, key in (_READERS[name] for name in kinds & set(_READERS)):
                if isinstance(item, dict) and isinstance(item.get(key), str):
                    raise UserError(f'{what} {item[key]} {_fault(item[key], error)}') from error
        raise


def _fault(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        is_of_windows = '\\' in path and os.path.exists(path.replace('\\', '/'))
        return f'does not exist; {"write / in its name, not " + chr(92) if is_of_windows else "check the data set"}'
    if os.path.exists(path) and not os.path.isfile(path):
        return 'is no file; correct the name in the data set'
    kind = type(error).__name__  # what OpenCV says besides is about its own code
    return f'cannot be decoded ({kind}); repair or remove it and start again, a training with --resume'


def lost_depth(image: np.ndarray) -> str | None:
    """What the toolboxes, which keep the upper 8 bits, would lose of an image (H, W, ...); None if that is little.

    Little is lost where values reach the upper half of 16 bits and at least one of 1,000 that are not 0 lies above the
    lowest quarter: a few hot pixels do not make 16 bits of 12. A black background and an alpha channel say nothing.
    """
    if image.dtype == np.uint8:
        return None
    if image.dtype != np.uint16:
        return f'has values of {image.dtype}, which are read as whole numbers from 0 to 255'
    if image.shape[2:] == (4,):
        image = image[..., :3]
    values = image[image > 0]
    if not values.size:
        return None
    highest = int(values.max())
    usual = int(np.percentile(values[:: 1 + values.size // 10**6], 99.9))
    if highest < 2**15:
        return f'has values up to {highest} of 16 bits, of which the upper 8 are read: {highest} becomes {highest >> 8}'
    if usual < 2**14:
        return (
            f'has values up to {highest} of 16 bits, but 99.9 % of them go up to {usual}, and the upper 8 bits are '
            f'read: {usual} becomes {usual >> 8}'
        )
    return None


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W) or (H, W, C), BGR, to draw on: RGB in 8 bits; channels beyond three are left out."""
    if image.dtype != np.uint8:
        image = (image * (255 / max(float(image.max()), 1e-9))).clip(0, 255).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] != 3:
        image = np.ascontiguousarray(image[..., :3]) if image.shape[2] > 3 else image[..., 0]
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def text_width(text: str, size: int) -> int:
    """How many pixels a line of text takes that :func:`write_text` writes."""
    return math.ceil(_font(size).getlength(text))


def write_text(image: np.ndarray, text: str, corner: tuple[int, int], size: int, colour: tuple = (0, 0, 0)) -> None:
    """Write a line of text into an image (H, W, 3), in place.

    Args:
        corner: Column and row where it begins, at its top.
        size: Of its font, in pixels.
    """
    drawn = Image.fromarray(image)
    ImageDraw.Draw(drawn).text(corner, text, fill=colour, font=_font(size))
    image[:] = np.asarray(drawn)


def annotated(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of an image (H, W, 3) with a line of text on a dark strip at its top, as large as its width allows."""
    image = image.copy()
    height, width = image.shape[:2]
    size = max(1, min(16 * width // (text_width(text, 16) + 8), height // 2, 32))
    image[: size + 4] //= 4
    write_text(image, text, (4, 0), size, (255, 255, 255))
    return image


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # which brings a font along

    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), size)


def write_image(path: str, image: np.ndarray) -> None:
    """Write an image (H, W) or (H, W, 3), BGR, all or nothing, in the format that the name ends in.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        # OpenCV does not take all names that a file system does.
        encoded = cv2.imencode(os.path.splitext(path)[1], image)[1]
    except cv2.error as error:
        raise UserError(f'cannot write {path} (OpenCV cannot write it)') from error
    write_whole(path, encoded.tobytes())
