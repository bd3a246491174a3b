"""Hooks for MMEngine's Runner."""

from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook
from mmengine.hooks import SyncBuffersHook as MMEngineSyncBuffersHook
from mmengine.runner import Runner

from ..apis.model import backbone_of
from ..registry import HOOKS
from ..utils.checkpoint import load_backbone
from ..utils.wrappers import unwrap


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Start training from the backbone of a checkpoint, whatever the task or toolbox.

    It loads just before the first iteration, after the model's own initialisation, and logs
    what matched. A resumed run keeps its resumed weights, also at iteration 0: in another number of
    processes, for example, its first epoch begins again.

    Args:
        checkpoint: Path of a checkpoint whose backbone is of the same kind.
    """

    priority = 'HIGH'  # before mmdet's MeanTeacherHook, which copies the student at the same point

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0 or (getattr(runner, '_resume', False) and runner._has_loaded):
            runner.logger.info(f'Resumed at iteration {runner.iter}: pretrained weights not loaded again')
            return
        model = unwrap(runner.model)
        _, backbone = backbone_of(model)
        match = load_backbone(backbone, self.checkpoint)
        runner.logger.info(f'Backbone from {self.checkpoint}: {match}')


@HOOKS.register_module()
class SyncBuffersHook(MMEngineSyncBuffersHook):
    """Average the processes' statistics of batch norms before validation and saving, also those of averaged weights.

    MMEngine's own hook knows nothing of EMAHook: with ``update_buffers`` each process then validates with, and the
    first saves, statistics of its own images alone.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        is_due = self.distributed and not self.called_in_train
        super().before_val_epoch(runner)
        if is_due:
            self._average_those_of_ema(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        super().after_train_epoch(runner)
        if self.distributed:
            self._average_those_of_ema(runner)

    def _average_those_of_ema(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                all_reduce_params(hook.ema_model.module.buffers(), op='mean')
