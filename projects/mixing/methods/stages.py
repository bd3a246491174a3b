"""A network's stages, for the methods that look into it: where they are, and the hook that shows them."""

from collections.abc import Iterator

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from scopevit.apis.model import backbone_of
from scopevit.utils.errors import UserError
from scopevit.utils.wrappers import unwrap

HOOK = "custom_hooks = [dict(type='MixingHook')]"


class StageMix:
    """What a batch augment that looks into the network has: the backbone, once :class:`MixingHook` has shown it."""

    backbone: nn.Module | None = None

    def see(self, backbone: nn.Module) -> None:
        """Take the backbone that will be trained.

        Raises:
            UserError: If the augment cannot look into it.
        """
        self.backbone = backbone

    def seen(self) -> nn.Module:
        """The backbone.

        Raises:
            UserError: If nothing has shown it.
        """
        if self.backbone is None:
            raise UserError(f'{type(self).__name__} looks into the network: add {HOOK} to the config')
        return self.backbone


@HOOKS.register_module()
class MixingHook(Hook):
    """Shows the backbone to the batch augments that look into it; others need no hook."""

    def before_train(self, runner: Runner) -> None:
        """Show it, now that the model is compiled or wrapped, if it will be.

        Raises:
            UserError: If the model has no backbone, or an augment cannot look into it.
        """
        show_backbone(unwrap(runner.model))


def show_backbone(model: nn.Module) -> None:
    """Show a classifier's backbone to its batch augments, as :class:`MixingHook` does in a training.

    Raises:
        UserError: If the model has no backbone, or an augment cannot look into it.
    """
    batch_augments = getattr(model.data_preprocessor, 'batch_augments', None)
    for augment in getattr(batch_augments, 'augments', []):
        if isinstance(augment, StageMix):
            augment.see(backbone_of(model)[1])


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The stages of a backbone, or the layers of one without stages, in the order in which they run.

    They are its ``stages`` or ``layers``, modules or the names of modules, or ``layer1``, ``layer2``, ...

    Raises:
        UserError: If it has fewer than two of them.
    """
    stages = list(_listed(backbone, 'stages')) or list(_listed(backbone, 'layers')) or list(_numbered(backbone))
    if len(stages) < 2:
        raise UserError(
            f'{type(backbone).__name__} shows no stages (stages, layers or layer1, layer2, ...) to look into: '
            'choose a method that mixes images alone, as Mixup or FMix'
        )
    return stages


def _listed(backbone: nn.Module, name: str) -> Iterator[nn.Module]:
    for stage in getattr(backbone, name, ()):
        stage = getattr(backbone, stage, None) if isinstance(stage, str) else stage
        if isinstance(stage, nn.Module):
            yield stage


def _numbered(backbone: nn.Module) -> Iterator[nn.Module]:
    number = 1
    while isinstance(stage := getattr(backbone, f'layer{number}', None), nn.Module):
        yield stage
        number += 1


def end_of(stage: nn.Module, first: bool) -> nn.Module:
    """The first or last module of a stage that runs: a bare list of modules has no forward pass of its own."""
    while isinstance(stage, nn.ModuleList):
        stage = stage[0 if first else -1]
    return stage


def require_stage(stage: int, backbone: nn.Module) -> None:
    """Make sure that a backbone has a stage, counted from 0.

    Raises:
        UserError: If not.
    """
    count = len(stages_of(backbone))
    if not 0 <= stage < count:
        raise UserError(f'stage must be from 0 to {count - 1} for {type(backbone).__name__}, but is {stage}')


@torch.no_grad()
def stage_map(backbone: nn.Module, stage: int, images: Tensor) -> Tensor:
    """The map (B, C, h, w) of a stage for images, in evaluation mode; later stages do not run.

    The backbone's modes and statistics stay as they are.

    Raises:
        UserError: If the stage does not run, or gives no map.
    """
    modes = {module: module.training for module in backbone.modules()}
    handle = end_of(stages_of(backbone)[stage], first=False).register_forward_hook(_stop)
    backbone.eval()
    try:
        backbone.forward(images)  # as it is written, also if it is compiled
    except _Found as found:
        return found.map()
    finally:
        handle.remove()
        # Mixed precision keeps the weights that it has cast; those cast here would get no gradients.
        torch.clear_autocast_cache()
        for module, mode in modes.items():
            module.training = mode
    raise UserError(f'stage {stage} of {type(backbone).__name__} did not run: choose another one')


class _Found(Exception):
    """Ends a forward pass at the stage whose outputs are wanted."""

    def map(self) -> Tensor:
        """The outputs, if they are a map."""
        outputs = self.args[0][0] if isinstance(self.args[0], tuple) else self.args[0]
        if outputs.ndim != 4:
            raise UserError(
                f'a stage gives {tuple(outputs.shape)}, no map (B, C, h, w): choose a method that mixes images alone, '
                'as SaliencyMix'
            )
        return outputs


def _stop(module: nn.Module, inputs: tuple, outputs: object) -> None:
    raise _Found(outputs)
