"""mmpretrain's transforms in less time: the same arguments and random draws.

``backend='torch'`` resizes by torch, at most 2 of 255 from Pillow. All else has equal results.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmpretrain.datasets import transforms as mmpretrain
from mmpretrain.datasets.transforms import auto_augment
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import InterpolationMode, resize_image

from ..registry import TRANSFORMS
from ..utils.errors import UserError

_VALUES = np.arange(256, dtype=np.uint8)[:, None]
# What becomes of a pixel in these depends on its value alone.
_BY_VALUE = (
    *(auto_augment.Brightness, auto_augment.Invert, auto_augment.Posterize),
    *(auto_augment.Solarize, auto_augment.SolarizeAdd),
)


def resize(img: np.ndarray, size: Sequence[int], interpolation: str) -> np.ndarray:
    """Resize an image with antialiasing, by torch.

    Args:
        img: (H, W) or (H, W, C), uint8, with any strides.
        size: Height and width of the result.
        interpolation: 'bilinear' or 'bicubic'.

    Raises:
        UserError: If it is another one.
    """
    if interpolation not in ('bilinear', 'bicubic'):
        raise UserError(
            f"backend='torch' has bilinear and bicubic interpolation, not {interpolation}; set backend='pillow'"
        )
    if tuple(size) == img.shape[:2]:
        return np.array(img, order='C')
    # (H, W, C) -> (C, H, W)
    planes = torch.from_numpy(np.require(img, None, ['C', 'W'])).view(*img.shape[:2], -1).permute(2, 0, 1)
    resized = resize_image(planes, list(size), InterpolationMode(interpolation), antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0)).reshape(*size, *img.shape[2:])


@TRANSFORMS.register_module()
class RandomResizedCrop(mmpretrain.RandomResizedCrop):
    """mmpretrain's, with the same crops from the same seed; ``backend`` may also be 'torch'."""

    def transform(self, results: dict) -> dict:
        """Crop and resize ``img``."""
        if self.backend != 'torch':
            return super().transform(results)
        top, left, height, width = self.rand_crop_params(results['img'])
        crop = results['img'][top : top + height, left : left + width]
        results['img'] = resize(crop, self.scale, self.interpolation)
        results['img_shape'] = results['img'].shape
        return results


@TRANSFORMS.register_module()
class ResizeEdge(mmpretrain.ResizeEdge):
    """mmpretrain's; ``backend`` may also be 'torch'."""

    def _resize_img(self, results: dict) -> None:
        if self.backend != 'torch':
            super()._resize_img(results)
            return
        (width, height), before = results['scale'], results['img'].shape
        results['img'] = resize(results['img'], (height, width), self.interpolation)
        results['img_shape'] = (height, width)
        results['scale_factor'] = (width / before[1], height / before[0])


@TRANSFORMS.register_module()
class RandAugment(auto_augment.RandAugment):
    """mmpretrain's, with the same results from the same seed."""

    def transform(self, results: dict) -> dict | None:
        """Apply randomly chosen policies to ``img``."""
        img = results['img']
        if img.strides[1] < 0:  # a flip's view, of which each policy would make a copy, pixel by pixel
            results['img'] = cv2.flip(img[:, ::-1], 1)
        augmented: dict | None = results
        for number in self.random_policy_indices():
            augmented = augmented and _augment(self.transforms[number], augmented)
        return augmented


def _contrast(transform: Any, img: np.ndarray) -> np.ndarray:
    magnitude = transform.random_magnitude() if transform.magnitude is None else transform.magnitude
    factor = 1 + transform.random_negative(magnitude)
    values = _VALUES.astype(np.float32)
    mean = np.full_like(values, round(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).mean()))
    return cv2.LUT(img, np.clip(cv2.addWeighted(values, factor, mean, 1 - factor, 0), 0, 255).astype(np.uint8))


# In these it depends on the image's histogram or mean, too, for which mmcv asks NumPy, more slowly.
_BY_HISTOGRAM: dict[type, Callable[[Any, np.ndarray], np.ndarray]] = {
    auto_augment.AutoContrast: lambda _, img: np.array(ImageOps.autocontrast(Image.fromarray(img))),
    auto_augment.Equalize: lambda _, img: np.array(ImageOps.equalize(Image.fromarray(img))),
    auto_augment.Contrast: _contrast,
}


def _augment(transform: Any, results: dict) -> dict | None:
    img, kind = results['img'], type(transform)
    if img.dtype == np.uint8 and kind in _BY_VALUE:
        table = transform(dict(img=_VALUES))['img']
        if table is not _VALUES:  # it draws whether it does anything
            results['img'] = cv2.LUT(img, table).reshape(img.shape)
    elif img.dtype == np.uint8 and kind in _BY_HISTOGRAM:
        if not transform.random_disable():
            results['img'] = _BY_HISTOGRAM[kind](transform, img)
    else:
        return transform(results)
    return results


@TRANSFORMS.register_module()
class RandomErasing(mmpretrain.RandomErasing):
    """mmpretrain's, with the same results from the same seed."""

    def _fill_pixels(self, img: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
        if self.mode == 'const' or self.fill_std is None:
            return super()._fill_pixels(img, top, left, height, width)
        patch = np.random.standard_normal((height, 3 * width))  # the numbers of np.random.normal, which is slower
        patch *= np.tile(self.fill_std, width)
        patch += np.tile(self.fill_color, width)
        img[top : top + height, left : left + width] = np.clip(patch, 0, 255).reshape(height, width, 3)
        return img


@TRANSFORMS.register_module()
class PackInputs(mmpretrain.PackInputs):
    """mmpretrain's."""

    @staticmethod
    def format_input(input_: Any) -> Any:
        """An array (H, W, C) as a tensor (C, H, W); all else as mmpretrain has it."""
        if isinstance(input_, np.ndarray) and input_.ndim == 3 and input_.dtype == np.uint8:
            return torch.from_numpy(np.stack(cv2.split(input_)))
        return mmpretrain.PackInputs.format_input(input_)
