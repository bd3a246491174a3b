"""Hooks for MMEngine's Runner."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..registry import HOOKS
from .checkpoint import load_backbone
from .errors import UserError


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Start training from the backbone of a checkpoint, whatever the task or toolbox.

    It loads just before the first iteration, after the model's own initialisation, and logs
    what matched. A resumed run keeps its resumed weights.

    Args:
        checkpoint: Path of a checkpoint whose backbone is of the same kind.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            runner.logger.info(f'Resumed at iteration {runner.iter}: pretrained weights not loaded again')
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'backbone'):
            raise UserError(f'--pretrained needs a model with a backbone, but {type(model).__name__} has none')
        match = load_backbone(model.backbone, self.checkpoint)
        runner.logger.info(f'Backbone from {self.checkpoint}: {match}')
