"""SaliencyMix: a box around the most salient place of the partner, found in its pixels."""

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor
from torch.nn import functional as F

from .common import MaskMix, draw_share, require_alpha

LARGEST = 64
"""Side of the image whose spectrum is looked at; larger ones are averaged down to it."""


@BATCH_AUGMENTS.register_module()
class SaliencyMix(MaskMix):
    """A box of the partner, at its most salient place, pasted at the same place.

    Uddin, Monira, Shin, Chung, Bae: "SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better
    Regularization", ICLR 2021. The box has sqrt(1 - lambda) of each side, lambda from Beta(alpha, alpha), and is cut
    off at the image's border; labels are mixed by its area, image by image. The paper takes its saliency from
    OpenCV's contributed modules; here it is the spectral residual (:func:`spectral_residual`), computed on the
    images' device.

    Args:
        alpha: Of the distribution of lambda.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = require_alpha(alpha)

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """One for each image, (B, 1, H, W)."""
        side = (1 - draw_share(self.alpha)) ** 0.5
        saliency = spectral_residual(images)[partners]
        inside = torch.ones(len(images), 1, 1, dtype=torch.bool, device=images.device)
        peaks = saliency.flatten(1).argmax(dim=1)
        places = (peaks // saliency.shape[2], peaks % saliency.shape[2])
        for axis, place in enumerate(places):
            length = images.shape[axis + 2]
            # The middle of the cell that the peak lies in, in pixels of the image.
            centres = ((place + 0.5) * length / saliency.shape[axis + 1]).long().unsqueeze(1)
            extent = int(length * side)
            pixels = torch.arange(length, device=images.device)
            along = (pixels >= centres - extent // 2) & (pixels < centres - extent // 2 + extent)
            inside = inside & along.unsqueeze(2 - axis)
        return ~inside.unsqueeze(1)


def spectral_residual(images: Tensor) -> Tensor:
    """Saliency of images (B, C, H, W), as (B, h, w) in float32, h and w at most :data:`LARGEST`.

    Hou, Zhang: "Saliency Detection: A Spectral Residual Approach", CVPR 2007, on the mean of the channels: what the
    logarithm of the spectrum's amplitude has beyond its mean over 3 x 3 frequencies, transformed back with the phase,
    squared, and smoothed by a Gaussian of an eighth of the sides (8 of 64 pixels in the paper). Spectra repeat, so the
    map is smoothed across the borders to the other side.
    """
    height, width = (min(side, LARGEST) for side in images.shape[-2:])
    grey = F.adaptive_avg_pool2d(images.float().mean(dim=1, keepdim=True), (height, width))
    # (B, 1, H, W) -> (B, h, w)
    spectrum = torch.fft.fft2(grey.squeeze(1))
    amplitude = spectrum.abs().clamp(min=1e-8).log()
    local = F.avg_pool2d(F.pad(amplitude.unsqueeze(1), (1, 1, 1, 1), mode='circular'), 3, stride=1).squeeze(1)
    residual = torch.polar((amplitude - local).exp(), spectrum.angle())
    saliency = torch.fft.ifft2(residual).abs().square()
    down, across = (torch.fft.fftfreq(side, device=images.device) * side for side in (height, width))
    # Of a Gaussian with a standard deviation of side / 8 the transform is one, too.
    gaussian = torch.exp(-2 * (torch.pi / 8) ** 2 * (down.square().unsqueeze(1) + across.square()))
    return torch.fft.ifft2(torch.fft.fft2(saliency) * gaussian).real
