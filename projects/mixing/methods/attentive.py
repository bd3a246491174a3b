"""AttentiveMix: the cells of the partner that the network attends to most."""

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor, nn

from scopevit.utils.errors import UserError

from .common import MaskMix, cells_to_pixels
from .stages import StageMix, require_stage, stage_map


@BATCH_AUGMENTS.register_module()
class AttentiveMix(StageMix, MaskMix):
    """The cells of the partner that the network attends to most, pasted at the same places.

    Walawalkar, Shen, Liu, Savvides: "Attentive CutMix: An Enhanced Data Augmentation Approach for Deep Learning Based
    Image Classification", ICASSP 2020, which takes 6 of the 7 x 7 cells that a pretrained network's last map has at
    224 pixels. Here it is the map of a stage of the network that is being trained, as it is at that moment: the
    attention of a cell is the mean of the channels' magnitudes. So no second model is needed; in the first iterations
    the map says little. That costs a forward pass up to that stage, in evaluation mode, without gradients.

    Args:
        stage: Whose map is looked at, counted from 0.
        top: Cells of the partner that are pasted; their area is its part in the label.
    """

    def __init__(self, stage: int = 3, top: int = 6) -> None:
        self.stage, self.top = stage, top

    def see(self, backbone: nn.Module) -> None:
        """Take the backbone that will be trained.

        Raises:
            UserError: If it has no such stage.
        """
        require_stage(self.stage, backbone)
        super().see(backbone)

    def draw_masks(self, images: Tensor, partners: Tensor) -> Tensor:
        """One for each image, (B, 1, H, W); nothing is drawn."""
        attention = stage_map(self.seen(), self.stage, images).float().abs().mean(dim=1)
        cells = attention[0].numel()
        if not 0 < self.top < cells:
            raise UserError(
                f'top of AttentiveMix must be from 1 to {cells - 1} of the {attention.shape[1]} x {attention.shape[2]} '
                f'cells of stage {self.stage}, but is {self.top}: choose an earlier stage, or fewer cells'
            )
        pasted = torch.zeros(len(images), cells, dtype=torch.bool, device=images.device)
        pasted.scatter_(1, attention[partners].flatten(1).topk(self.top).indices, True)
        return ~cells_to_pixels(pasted.view_as(attention), images.shape[-2:])
