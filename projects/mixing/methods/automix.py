"""AutoMix: masks that are learned together with the classifier.

Shape legend: B batch, C D channels, h w height and width of a stage's map, N = h * w, K classes.
"""

import copy
import math
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional as F

from scopevit.apis.model import image_channels
from scopevit.utils.errors import UserError

from .common import draw_partners, draw_share, require_alpha
from .stages import require_stage, stage_map


class MixBlock(nn.Module):
    """A mask from two images' maps: what the first one keeps of itself, by cross-attention to the second.

    Maps (B, C, h, w) -> (B, 1, h, w) from 0 to 1.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        dim = max(channels // 2, 1)
        self.scale = dim**-0.5
        self.project = nn.Conv2d(channels + 1, dim, 1)
        self.value = nn.Conv2d(channels + 1, 1, 1)

    def forward(self, own: Tensor, other: Tensor, share: float) -> Tensor:
        # How much each is to have of the mixed image is one more channel of its map.
        own, other = (F.pad(x, (0, 0, 0, 0, 0, 1), value=part) for x, part in ((own, share), (other, 1 - share)))
        # (B, C + 1, h, w) -> (B, D, N)
        queries, keys = (self.project(x).flatten(2) for x in (own, other))
        attention = (queries.transpose(1, 2) @ keys * self.scale).softmax(dim=2)
        # (B, 1, N) -> (B, 1, h, w)
        values = self.value(other).flatten(2) @ attention.transpose(1, 2)
        return values.sigmoid().unflatten(2, own.shape[2:])


@MODELS.register_module()
class AutoMixClassifier(ImageClassifier):
    """mmpretrain's classifier, trained on images as they are and on images mixed by learned masks.

    Liu, Li, Wu, Liu, Chen, Wu, Li: "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers", ECCV 2022. A
    teacher, the moving average of the classifier, gives each image's map at a stage; a :class:`MixBlock` makes a mask
    of the maps of an image and its partner. The loss has four parts: that of the classifier on the images, that of the
    classifier on mixed images (the mask takes no gradient from it), that of the teacher on mixed images (which trains
    the mask alone), and how far the mask's mean is from lambda, beyond a tolerance, by a weight that falls to 0.
    lambda is from Beta(alpha, alpha); so are the labels. In a test it is mmpretrain's classifier.

    Args:
        mix_stage: Whose maps the masks are made of, counted from 0.
        alpha: Of the distribution of lambda.
        momentum: Of the teacher in the beginning; it rises to 1 along a cosine.
        mask_weight: Of the loss of the masks' means in the beginning; it falls to 0.
        tolerance: How far a mean may be from lambda at no cost.
        options: Those of ``ImageClassifier``.

    Raises:
        UserError: If the backbone has no such stage.
    """

    def __init__(
        self,
        *,
        mix_stage: int,
        alpha: float = 2.0,
        momentum: float = 0.999,
        mask_weight: float = 0.1,
        tolerance: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_stage(mix_stage, self.backbone)
        if self.data_preprocessor.batch_augments is not None:
            raise UserError('AutoMixClassifier mixes the images itself: leave augments out of train_cfg')
        self.mix_stage, self.alpha, self.momentum = mix_stage, require_alpha(alpha), momentum
        self.mask_weight, self.tolerance = mask_weight, tolerance
        # Of the maps of that stage the channels count alone, so any image tells them.
        image = torch.zeros(1, image_channels(self), 64, 64)
        self.mix_block = MixBlock(stage_map(self.backbone, mix_stage, image).shape[1])
        self.teacher = copy.deepcopy(self._student()).requires_grad_(False)
        self.register_buffer('steps', torch.zeros(()))

    def train(self, mode: bool = True) -> 'AutoMixClassifier':
        """Set the mode; the teacher stays in evaluation."""
        super().train(mode)
        if hasattr(self, 'teacher'):
            self.teacher.eval()
        return self

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The four losses of images (B, C, H, W)."""
        progress = _progress()
        self._follow(1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2)
        share, partners = draw_share(self.alpha), draw_partners(len(inputs), inputs.device)
        maps = stage_map(self.teacher['backbone'], self.mix_stage, inputs)
        masks = self.mix_block(maps, maps[partners], share).float()
        masks = F.interpolate(masks, inputs.shape[-2:], mode='bilinear')
        mixed = torch.lerp(inputs[partners], inputs, masks.expand_as(inputs))
        labels = F.one_hot(torch.cat([sample.gt_label for sample in data_samples]), self.head.num_classes).float()
        samples = [DataSample().set_gt_score(score) for score in torch.lerp(labels[partners], labels, share)]
        beyond = ((masks.mean(dim=(1, 2, 3)) - share).abs() - self.tolerance).clamp(min=0)
        return dict(
            loss=_total(super().loss(inputs, data_samples)),
            loss_mixed=_total(super().loss(mixed.detach(), samples)),
            loss_generator=_total(self._teach(mixed, samples)),
            loss_mask=self.mask_weight * (1 - progress) * beyond.mean(),
        )

    def _student(self) -> nn.ModuleDict:
        parts = dict(backbone=self.backbone, neck=self.neck, head=self.head)
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def _teach(self, mixed: Tensor, samples: list[DataSample]) -> dict[str, Tensor]:
        features = self.teacher['backbone'](mixed)
        if 'neck' in self.teacher:
            features = self.teacher['neck'](features)
        return self.teacher['head'].loss(features, samples)

    @torch.no_grad()
    def _follow(self, momentum: float) -> None:
        """Move the teacher towards the classifier; before the first step it is made the same."""
        student = self._student()
        weight = torch.where(self.steps == 0, 1.0, 1 - momentum)  # without waiting for the device
        for own, other in zip(self.teacher.parameters(), student.parameters()):
            own.lerp_(other, weight.to(own.dtype))
        for own, other in zip(self.teacher.buffers(), student.buffers()):
            own.copy_(other)
        self.steps += 1


def _total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


def _progress() -> float:
    """The part of the training that is done, from 0 to 1; 0 outside of one."""
    hub = MessageHub.get_current_instance()
    return hub.get_info('iter', 0) / max(hub.get_info('max_iters', 1), 1)
