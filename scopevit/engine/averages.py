"""Averages of weights whose updates take few launches."""

from collections.abc import Callable

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from torch import Tensor, nn

TREAT_ALL_ALIKE = ('ExponentialMovingAverage', 'MomentumAnnealingEMA', 'ExpMomentumEMA')
"""Averages of MMEngine, mmdet and mmpose whose ``avg_func`` does the same with each tensor."""


class UpdateAtOnceHook(Hook):
    """Let the averages of a training's ``EMAHook`` be updated as by :func:`update_at_once`."""

    def before_train(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                update_at_once(hook.ema_model)


def update_at_once(average: BaseAveragedModel) -> None:
    """Let each update of an average take all its tensors at once; the results are the same.

    MMEngine updates one after the other, 583 of ScopeViT-tiny with its buffers, each in a launch or two.

    Args:
        average: One of ``TREAT_ALL_ALIKE``; others stay as they are.
    """
    kind = type(average)
    is_known = kind.__name__ in TREAT_ALL_ALIKE and kind.__module__.startswith(('mmengine.', 'mmdet.', 'mmpose.'))
    if is_known and 'avg_func' not in vars(average):  # as it is after an earlier call
        together = _Together(average)
        average.avg_func, average.update_parameters = together.collect, together.update


class _Together:
    """What takes the place of an average's methods."""

    def __init__(self, average: BaseAveragedModel) -> None:
        self.avg_func, self.update_parameters = average.avg_func, average.update_parameters
        self.stand_in = _StandIn()
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}  # averaged and new, by the place of the first in memory

    def update(self, model: nn.Module) -> None:
        self.update_parameters(model)
        self.finish()

    def collect(self, averaged: Tensor, source: Tensor, steps: Tensor) -> None:
        if averaged.data_ptr() in self.pairs:  # what layers share comes once for each, and is averaged as often
            self.finish()
        if not self.pairs:
            self.stand_in = _StandIn()
            self.avg_func(self.stand_in, source, steps)
        self.pairs[averaged.data_ptr()] = averaged, source

    def finish(self) -> None:
        pairs, self.pairs = list(self.pairs.values()), {}
        for operation in self.stand_in.operations if pairs else ():
            operation(*map(list, zip(*pairs)))


class _StandIn:
    """Stands for a tensor in ``avg_func``: what is done with it is to be done with lists of averages and sources."""

    def __init__(self) -> None:
        self.operations: list[Callable[[list[Tensor], list[Tensor]], None]] = []

    def lerp_(self, source: Tensor, weight: float) -> '_StandIn':
        self.operations.append(lambda averages, sources: torch._foreach_lerp_(averages, sources, weight))
        return self

    def mul_(self, factor: float) -> '_StandIn':
        self.operations.append(lambda averages, sources: torch._foreach_mul_(averages, factor))
        return self

    def add_(self, source: Tensor, alpha: float) -> '_StandIn':
        self.operations.append(lambda averages, sources: torch._foreach_add_(averages, sources, alpha=alpha))
        return self
