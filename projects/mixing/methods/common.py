"""What all methods share: their draws, and images and labels mixed by one mask.

Shape legend: B batch, C channels, H W height and width of the images, K classes.
"""

import torch
from torch import Tensor

from scopevit.utils.errors import UserError


def draw_share(alpha: float) -> float:
    """A number from Beta(alpha, alpha), by the CPU's random state of torch, whatever the device of the images."""
    return torch.distributions.Beta(*torch.tensor([alpha, alpha], dtype=torch.float64)).sample().item()


def draw_partners(count: int, device: torch.device) -> Tensor:
    """With whom each image of a batch is mixed: a permutation (B,) on a device, drawn on the CPU."""
    return torch.randperm(count).to(device, non_blocking=True)


def require_alpha(alpha: float) -> float:
    """Make sure that there is a distribution Beta(alpha, alpha).

    Raises:
        UserError: If not.
    """
    if not isinstance(alpha, (int, float)) or not alpha > 0:
        raise UserError(f'alpha of Beta(alpha, alpha) must be a number above 0, but is {alpha!r}')
    return float(alpha)


def require_batch(images: Tensor, scores: Tensor) -> None:
    """Make sure that images (B, C, H, W) have labels (B, K).

    Raises:
        UserError: If not.
    """
    if images.ndim != 4 or scores.ndim != 2 or len(images) != len(scores):
        raise UserError(
            'mixing takes images (B, C, H, W) with one-hot or soft labels (B, K), but got '
            f'{tuple(images.shape)} and {tuple(scores.shape)}'
        )


class MaskMix:
    """A batch augment of mmpretrain that mixes each image with a partner's by a mask.

    image = mask * own + (1 - mask) * partner's; label = mean(mask) * own + (1 - mean(mask)) * partner's.

    The partners are a permutation of the batch. All that is random follows from torch's random state of the CPU, so
    that a seed gives the same draws on every device and a resumed training goes on with them; nothing waits for the
    device. The batch that is given stays as it is.
    """

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """The parts that images (B, C, H, W) keep of themselves, (1 or B, 1, H, W) on their device.

        Of type bool where a pixel is of one image alone, else float32 from 0 to 1.
        """
        raise NotImplementedError

    def __call__(self, batch_input: Tensor, batch_score: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B, K) -> mixed images of the same type, and labels in float32.

        Raises:
            UserError: For other shapes.
        """
        require_batch(batch_input, batch_score)
        partners = draw_partners(len(batch_input), batch_input.device)
        masks = self.draw_masks(batch_input, partners)
        return blend(batch_input, partners, masks), mix_labels(batch_score, partners, masks)


def blend(images: Tensor, partners: Tensor, masks: Tensor) -> Tensor:
    """Images (B, C, H, W) and their partners' by masks (1 or B, 1, H, W), in the images' type."""
    if masks.dtype == torch.bool:
        return torch.where(masks, images, images[partners])
    return torch.lerp(images[partners], images, masks.to(images.dtype).expand_as(images))


def mix_labels(scores: Tensor, partners: Tensor, masks: Tensor) -> Tensor:
    """Labels (B, K) and their partners' by the means of masks, in float32."""
    shares = masks.float().mean(dim=(1, 2, 3)).unsqueeze(1)
    return shares * scores.float() + (1 - shares) * scores[partners].float()


def cells_to_pixels(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """A grid (B, h, w) -> (B, 1, H, W): each pixel gets the value of the cell that it lies in.

    Where H or W is no multiple of h or w, some cells are a pixel larger than others.
    """
    rows, columns = (
        torch.arange(side, device=cells.device) * count // side for side, count in zip(size, cells.shape[1:])
    )
    return cells[:, rows][:, :, columns].unsqueeze(1)
