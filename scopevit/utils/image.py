"""Reading images of any kind, and writing them as a whole."""

import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError
from .files import whole_file


def read_image(path: str, grey: bool = False) -> np.ndarray:
    """Read an image as the toolboxes' pipelines do: 8 bits, BGR or grey, turned as its EXIF says.

    Raises:
        UserError: If it cannot be read or is damaged.
    """
    try:
        with open(path, 'rb') as file:
            data = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
    if not data.size:
        raise UserError('is empty')
    fallback = None
    try:
        # OpenCV fills what is missing of a truncated file with grey and says nothing.
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter('ignore')
            picture.load()
            fallback = picture.mode
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass  # OpenCV reads some formats and sizes that Pillow does not
    except Exception as error:  # whatever a decoder says of damaged data
        raise UserError(f'is damaged ({error})') from error
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if image is None and fallback:
        with Image.open(path) as picture:
            image = np.asarray(ImageOps.exif_transpose(picture).convert('L' if grey else 'RGB'))
        image = image if grey else np.ascontiguousarray(image[..., ::-1])
    if image is None:
        raise UserError('is not an image that OpenCV or Pillow can read')
    return image


def write_image(path: str, image: np.ndarray) -> None:
    """Write an image (H, W) or (H, W, 3), BGR, all or nothing, in the format that the name ends in.

    Raises:
        UserError: If it cannot be written.
    """
    with whole_file(path) as temporary:
        if not cv2.imwrite(temporary, image):
            raise OSError('OpenCV cannot write it')
