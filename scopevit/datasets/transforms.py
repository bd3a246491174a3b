"""mmpretrain's transforms in less time: the same arguments and random draws.

``backend='torch'`` resizes by torch, at most 2 of 255 from Pillow. With OpenCV 4, bicubic shears and translations of
RandAugment are at most 1 of 255 from its own, in less than one value of a thousand. All else has equal results.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmpretrain.datasets import transforms as mmpretrain
from mmpretrain.datasets.transforms import auto_augment
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
    """mmpretrain's, with the same draws from the same seed, and results as the module's docstring says."""

    def transform(self, results: dict) -> dict | None:
        """Apply randomly chosen policies to ``img``."""
        img = results['img']
        # A flip's view, of which each policy would make a copy, pixel by pixel.
        if _is_colour(img) and img.strides[1] < 0:
            results['img'] = cv2.flip(img[:, ::-1], 1)
        augmented: dict | None = results
        for number in self.random_policy_indices():
            augmented = augmented and _augment(self.transforms[number], augmented)
        return augmented


def _is_colour(img: np.ndarray) -> bool:
    return img.dtype == np.uint8 and img.shape[2:] == (3,)


def _can_pad(transform: Any) -> bool:
    pad_val = getattr(transform, 'pad_val', 0)
    return isinstance(pad_val, int) or (isinstance(pad_val, tuple) and len(pad_val) == 3)


def _magnitude(transform: Any) -> float:
    return transform.random_negative(
        transform.random_magnitude() if transform.magnitude is None else transform.magnitude
    )


def _autocontrast(_: Any, img: np.ndarray) -> np.ndarray:
    planes = img.reshape(len(img), -1)
    low, high = (of(planes, axis=0).reshape(-1, 3) for of in (np.min, np.max))
    low, high = low.min(axis=0), high.max(axis=0).astype(float)  # of each channel
    scale = 255 / np.where(high > low, high - low, 255)
    table = np.clip(_VALUES * scale - np.where(high > low, low * scale, 0), 0, 255)
    return cv2.LUT(img, table.astype(np.uint8)[None])


def _equalize(_: Any, img: np.ndarray) -> np.ndarray:
    table = np.tile(_VALUES, 3)
    for channel in range(3):
        # (256, 1), and (256,) from OpenCV 5 on.
        counts = cv2.calcHist([img], [channel], None, [256], [0, 256]).ravel().astype(int)
        step = (img[..., 0].size - counts[counts > 0][-1]) // 255
        if step:
            before = np.cumsum(counts) - counts
            table[:, channel] = np.minimum((before + step // 2) // step, 255)
    return cv2.LUT(img, table[None])


def _contrast(transform: Any, img: np.ndarray) -> np.ndarray:
    factor = 1 + _magnitude(transform)
    values = _VALUES.astype(np.float32)
    mean = np.full_like(values, round(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).mean()))
    return cv2.LUT(img, np.clip(cv2.addWeighted(values, factor, mean, 1 - factor, 0), 0, 255).astype(np.uint8))


def _color(transform: Any, img: np.ndarray) -> np.ndarray:
    factor = 1 + _magnitude(transform)
    grey = cv2.cvtColor(cv2.cvtColor(img, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(img, factor, grey, 1 - factor, 0)


@functools.cache
def _cubic_weights(fraction: int) -> np.ndarray:
    """OpenCV's weights for the 4 pixels around a place that is so many 32nds behind the second of them, as (1, 4)."""
    x, y = fraction / 32, 1 - fraction / 32
    inner = [(1.25 * x - 2.25) * x * x + 1, (1.25 * y - 2.25) * y * y + 1]
    weights = np.rint(32768 * np.array([[-0.75 * x * y * y, *inner, -0.75 * y * x * x]]))
    weights[0, 2] += 32768 - weights.sum()  # which OpenCV may give to a pixel of the next row instead
    return weights / 32768


def _shift_rows(img: np.ndarray, shifts: np.ndarray, pad_val: int | Sequence[int]) -> np.ndarray:
    """Move each row to the right by so many pixels, as OpenCV 4's warpAffine, with 4 weights a pixel instead of 16."""
    height, width = img.shape[:2]
    # Where rows start in the source, in the 32nds of a pixel that OpenCV knows; further out there is padding alone.
    start = np.clip((np.rint(-1024 * shifts).astype(int) + 16) // 32, -32 * (width + 4), 32 * (width + 4))
    pixel, fraction = start // 32, start % 32
    left, right = max(0, 1 - pixel.min()), max(0, 2 + pixel.max())
    border = (pad_val,) * 3 if isinstance(pad_val, int) else tuple(pad_val)
    padded = cv2.copyMakeBorder(img, 0, 0, left, right, cv2.BORDER_CONSTANT, value=border).reshape(height, -1)
    # The width + 3 pixels that a row is made of, for all rows, those with the same fraction one after the other.
    order = np.argsort(fraction, kind='stable')
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3 * (width + 3), axis=1)
    sources = windows[order, 3 * (pixel[order] - 1 + left)].reshape(height, width + 3, 3)
    moved = np.empty_like(img)
    fractions, first = np.unique(fraction[order], return_index=True)
    for each, begin, end in zip(fractions.tolist(), first, [*first[1:], height]):
        # The small number takes halves up, as warpAffine does; less would be lost in sums over 256, which are float32.
        filtered = cv2.filter2D(sources[begin:end], -1, _cubic_weights(each), anchor=(0, 0), delta=2**-15)
        moved[order[begin:end]] = filtered[:, :width]
    return moved


def _shift(transform: Any, img: np.ndarray) -> np.ndarray:
    magnitude, is_vertical = _magnitude(transform), transform.direction == 'vertical'
    rows = cv2.transpose(img) if is_vertical else img
    if type(transform) is auto_augment.Shear:
        shifts = np.arange(len(rows)) * float(np.float32(magnitude))
    else:
        shifts = np.full(len(rows), np.float32(magnitude * rows.shape[1]), float)
    moved = _shift_rows(rows, shifts, transform.pad_val)
    return cv2.transpose(moved) if is_vertical else moved


# In these mmcv asks NumPy for histograms, tiles a grey image, or interpolates in two directions, more slowly.
_QUICK: dict[type, Callable[[Any, np.ndarray], np.ndarray]] = {
    auto_augment.AutoContrast: _autocontrast,
    auto_augment.Equalize: _equalize,
    auto_augment.Contrast: _contrast,
    auto_augment.ColorTransform: _color,
}
if cv2.__version__.startswith('4.'):  # later ones know exact places, for which rows have no weights in common
    _QUICK.update({auto_augment.Shear: _shift, auto_augment.Translate: _shift})


def _augment(transform: Any, results: dict) -> dict | None:
    img, kind = results['img'], type(transform)
    if not _is_colour(img):
        return transform(results)
    if kind in _BY_VALUE:
        table = transform(dict(img=_VALUES))['img']
        if table is not _VALUES:  # it draws whether it does anything
            results['img'] = cv2.LUT(img, table)
    elif (
        kind in _QUICK
        and getattr(transform, 'interpolation', 'bicubic') == 'bicubic'
        and _can_pad(transform)  # else mmcv says what is wrong
    ):
        if not transform.random_disable():
            results['img'] = _QUICK[kind](transform, img)
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
