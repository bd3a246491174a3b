"""Methods whose masks follow from random numbers alone, one mask for a batch: FMix, GridMix, SmoothMix."""

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from scopevit.utils.errors import UserError

from .common import MaskMix, cells_to_pixels, draw_share, require_alpha


@BATCH_AUGMENTS.register_module()
class FMix(MaskMix):
    """Blobs of any shape, cut from noise of low frequencies.

    Harris, Marcu, Painter, Niranjan, Pruegel-Bennett, Hare: "FMix: Enhancing Mixed Sample Data Augmentation",
    arXiv:2002.12047, 2020. Complex normal noise is divided by |frequency| ** decay and transformed back; the pixels
    with the highest values, lambda of them all, stay those of the image itself. lambda is from Beta(alpha, alpha).

    Args:
        alpha: Of the distribution of lambda.
        decay: The power by which frequencies decay; the larger, the smoother the blobs.
    """

    def __init__(self, alpha: float = 1.0, decay: float = 3.0) -> None:
        self.alpha, self.decay = require_alpha(alpha), decay

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """One for the batch, (1, 1, H, W)."""
        size = images.shape[-2:]
        count = round(draw_share(self.alpha) * size.numel())
        values = low_frequency_noise(size, self.decay, images.device).flatten()
        mask = torch.zeros_like(values, dtype=torch.bool)
        return mask.index_fill(0, values.argsort(descending=True)[:count], True).view(1, 1, *size)


def low_frequency_noise(size: tuple[int, int], decay: float, device: torch.device) -> Tensor:
    """Noise (H, W) whose amplitudes fall with |frequency| ** decay."""
    height, width = size
    noise = torch.randn(height, width, dtype=torch.complex64).to(device, non_blocking=True)
    down, across = (torch.fft.fftfreq(side, device=device) for side in size)
    # The frequency 0 gets the weight of the lowest other one: what it adds to all pixels does not change their order.
    magnitudes = torch.hypot(down.unsqueeze(1), across).clamp(min=1 / max(size))
    return torch.fft.ifft2(noise / magnitudes**decay).real


@BATCH_AUGMENTS.register_module()
class GridMix(MaskMix):
    """Cells of a grid, taken at random from one of the two images.

    Baek, Bang, Shim: "GridMix: Strong regularization through local context mapping", Pattern Recognition 109, 2021.
    Of the grid's cells lambda, rounded to whole cells, stay those of the image itself; lambda is from
    Beta(alpha, alpha). The paper also predicts a label for each patch; that second loss needs a head of its own and is
    left out here.

    Args:
        alpha: Of the distribution of lambda.
        grid: Cells along each side.
    """

    def __init__(self, alpha: float = 1.0, grid: int = 4) -> None:
        if not isinstance(grid, int) or grid < 2:
            raise UserError(f'grid of GridMix must be a whole number of at least 2 cells a side, but is {grid!r}')
        self.alpha, self.grid = require_alpha(alpha), grid

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """One for the batch, (1, 1, H, W)."""
        own = torch.zeros(self.grid**2, dtype=torch.bool)
        own[torch.randperm(len(own))[: round(draw_share(self.alpha) * len(own))]] = True
        cells = own.view(1, self.grid, self.grid).to(images.device, non_blocking=True)
        return cells_to_pixels(cells, images.shape[-2:])


@BATCH_AUGMENTS.register_module()
class SmoothMix(MaskMix):
    """A disc with soft edges.

    Lee, Zaheer, Astrid, Lee: "SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust Classifiers", CVPR
    Workshops 2020, the form with circles. The partner's part of a pixel is exp(-(dy**2 / sy**2 + dx**2 / sx**2) / 2),
    dy and dx from a pixel drawn as the centre; labels are mixed by the mean.

    Args:
        spread: Between which parts of the image's sides the standard deviations sy and sx are drawn, as one part of
            both.
    """

    def __init__(self, spread: tuple[float, float] = (0.25, 0.5)) -> None:
        if len(spread) != 2 or not 0 < spread[0] <= spread[1]:
            raise UserError(f'spread of SmoothMix must be two parts of the side, 0 < least <= most, but is {spread}')
        self.spread = tuple(spread)

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """One for the batch, (1, 1, H, W)."""
        least, most = self.spread
        part = torch.empty(()).uniform_(least, most).item()
        curves = []
        for side in images.shape[-2:]:
            distances = torch.arange(side, device=images.device) - torch.randint(side, ()).item()
            curves.append(torch.exp(-0.5 * (distances / (part * side)) ** 2))
        return 1 - torch.outer(*curves)[None, None]
