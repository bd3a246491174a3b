"""ManifoldMix: Mixup of what enters a stage of the network."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor, nn

from scopevit.utils.errors import UserError

from .common import draw_partners, draw_share, require_alpha, require_batch
from .stages import StageMix, end_of, stages_of


class Plan(NamedTuple):
    """What is to be mixed at a stage: with whom, and how much stays."""

    stage: int
    partners: Tensor
    share: float

    def mix(self, x: Tensor) -> Tensor:
        """Mix (B, ...) with the partners', in its type."""
        return torch.lerp(x[self.partners], x, self.share)


@BATCH_AUGMENTS.register_module()
class ManifoldMix(StageMix):
    """Mixup at a stage drawn for each batch: of the images, or of the features that enter a later stage.

    Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio: "Manifold Mixup: Better Representations by
    Interpolating Hidden States", ICML 2019. features = lambda * own + (1 - lambda) * partner's, labels alike, lambda
    from Beta(alpha, alpha). As a batch augment it mixes the labels; the features are mixed on their way into the stage,
    by a hook that :class:`~projects.mixing.methods.stages.MixingHook` lets it put there.

    Args:
        alpha: Of the distribution of lambda.
        stages: Those to draw from: 0 is the images, k what enters the backbone's stage k, counted from 0. None: all.
    """

    def __init__(self, alpha: float = 2.0, stages: Sequence[int] | None = None) -> None:
        self.alpha = require_alpha(alpha)
        self.stages = stages
        self.plan: Plan | None = None

    def see(self, backbone: nn.Module) -> None:
        """Put hooks before the stages of the backbone that will be trained.

        Raises:
            UserError: If it has no stages, not those that are asked for, or is compiled.
        """
        if backbone._compiled_call_impl is not None:
            raise UserError('ManifoldMix draws a stage for each batch, which a compiled backbone cannot: no --compile')
        if self.backbone is backbone:
            return
        entrances = [end_of(stage, first=True) for stage in stages_of(backbone)]
        self.choices = sorted(set(range(len(entrances)) if self.stages is None else self.stages))
        if not self.choices or not set(self.choices) <= set(range(len(entrances))):
            raise UserError(
                f'stages of ManifoldMix must be some of 0 to {len(entrances) - 1}, which {type(backbone).__name__} '
                f'has, but are {self.stages}'
            )
        super().see(backbone)
        for number in self.choices:
            if number > 0:
                entrances[number].register_forward_pre_hook(_Entrance(self, number))

    def __call__(self, batch_input: Tensor, batch_score: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B, K) -> images, mixed if the stage is 0, and mixed labels in float32.

        Raises:
            UserError: For other shapes, or without the hook.
        """
        require_batch(batch_input, batch_score)
        backbone = self.seen()
        if self.plan is not None:
            raise UserError(
                f'stage {self.plan.stage} of {type(backbone).__name__} did not run, so that ManifoldMix mixed labels '
                'alone: leave it out of stages'
            )
        stage = self.choices[torch.randint(len(self.choices), ()).item()]
        plan = Plan(stage, draw_partners(len(batch_input), batch_input.device), draw_share(self.alpha))
        if stage == 0:
            batch_input = plan.mix(batch_input)
        else:
            self.plan = plan
        return batch_input, plan.mix(batch_score.float())


class _Entrance:
    """Mixes what enters a stage, once for each plan."""

    def __init__(self, augment: ManifoldMix, stage: int) -> None:
        self.augment, self.stage = augment, stage

    def __call__(self, module: nn.Module, inputs: tuple) -> tuple | None:
        plan = self.augment.plan
        if plan is None or plan.stage != self.stage:
            return None
        self.augment.plan = None
        return plan.mix(inputs[0]), *inputs[1:]
