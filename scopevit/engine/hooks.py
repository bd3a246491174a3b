"""Hooks for MMEngine's Runner."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..registry import HOOKS
from .checkpoint import load_backbone
from .optim import backbone_of


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Start training from the backbone of a checkpoint, whatever the task or toolbox.

    It loads just before the first iteration, after the model's own initialisation, and logs
    what matched. A resumed run keeps its resumed weights.

    Args:
        checkpoint: Path of a checkpoint whose backbone is of the same kind.
    """

    priority = 'HIGH'  # before mmdet's MeanTeacherHook, which copies the student at the same point

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            runner.logger.info(f'Resumed at iteration {runner.iter}: pretrained weights not loaded again')
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        _, backbone = backbone_of(model)
        match = load_backbone(backbone, self.checkpoint)
        runner.logger.info(f'Backbone from {self.checkpoint}: {match}')
