"""Learning channels and strides of a backbone's or neck's outputs, by running it without weights or arithmetic."""

import copy
import functools
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from ..apis.model import in_scope
from ..utils.config import without_weights
from ..utils.errors import one_line


class Level(NamedTuple):
    """A feature map; with stride 0 a vector for each image, with stride -1 a sequence of tokens (B, C, N)."""

    channels: int
    stride: int


class ProbeError(RuntimeError):
    """The outputs of a module are not known, or not a sequence of feature maps; the message says why."""


class SkipInit(TorchFunctionMode):
    """Do not draw initial values of parameters, which take most of a build's time and do not matter here."""

    drawing = {torch.Tensor.normal_, torch.Tensor.uniform_}

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return args[0] if args else kwargs['tensor']
        if func in self.drawing:
            return args[0].zero_()  # not left as it is: torch draws again while values are out of range
        return func(*args, **kwargs)


def build_uninitialised(cfg: dict, scope: str) -> nn.Module:
    """Build a part of a model quickly; its parameters hold arbitrary numbers."""
    with in_scope(scope), SkipInit():
        return MODELS.build(copy.deepcopy(cfg))


def run_shapes(build: Callable, run: Callable) -> Any:
    """``run(module, device)`` on torch's meta device, which has shapes but no data; where that fails, on the CPU."""
    with torch.no_grad():
        try:
            return run(build().to('meta'), 'meta')
        except Exception:  # operators of mmcv, or code that reads values; if the CPU fails, too, its traceback has both
            return run(build(), 'cpu')


def probe_backbone(cfg: dict, scope: str, in_channels: int) -> list[Level]:
    """Channels and strides of the maps that a backbone returns, in training and in evaluation.

    Raises:
        ProbeError: If the backbone cannot be built or run here, or its outputs are not a sequence
            of maps or vectors.
    """
    cfg = without_weights(cfg)
    for key in ('dcn', 'with_cp', 'use_checkpoint'):  # no influence on shapes; do not run on the meta device
        cfg.pop(key, None)
    return list(_probe_backbone(pickle.dumps(cfg), scope, in_channels))


@functools.lru_cache(maxsize=256)  # many configs have the same
def _probe_backbone(pickled: bytes, scope: str, in_channels: int) -> list[Level]:
    cfg = pickle.loads(pickled)
    try:
        build_uninitialised(cfg, scope)
    except Exception as error:
        raise ProbeError(f'it cannot be built here: {one_line(error)}') from error
    size = cfg.get('img_size')
    sizes = [tuple(size) if isinstance(size, (list, tuple)) else (size, size)] if size else []
    problems = []
    for size in [*sizes, (256, 256), (224, 224), (32, 32)]:
        try:
            outputs = run_shapes(
                lambda: build_uninitialised(cfg, scope), functools.partial(_run_both_modes, in_channels, size)
            )
        except Exception as error:
            problems.append(error)
            continue
        training, evaluation = (_levels(output, size) for output in outputs)
        if training != evaluation:
            raise ProbeError('its outputs in training are other maps than in evaluation')
        return training
    raise ProbeError(f'it cannot be run here: {one_line(problems[0])}') from problems[0]


def _run_both_modes(in_channels: int, size: Sequence[int], backbone: nn.Module, device: str) -> list:
    outputs = []
    for mode in (True, False):
        backbone.train(mode)
        # Batch norm in training mode needs two images.
        outputs.append(backbone(torch.zeros(2, in_channels, *size, device=device)))
    return outputs


def probe_neck(cfg: dict, scope: str, levels: Sequence[Level]) -> list[Level]:
    """Channels of what a neck makes of these levels (strides are not followed: 1 for any map)."""

    def run(neck: nn.Module, device: str) -> object:
        neck.eval()
        # Of an image of 256 pixels.
        sizes = [(max(256 // level.stride, 1),) * 2 if level.stride > 0 else () for level in levels]
        return neck(tuple(torch.zeros(2, level.channels, *size, device=device) for level, size in zip(levels, sizes)))

    try:
        output = run_shapes(lambda: build_uninitialised(without_weights(cfg), scope), run)
    except Exception as error:
        raise ProbeError(one_line(error)) from error
    return [Level(level.channels, min(level.stride, 1)) for level in _levels(output, (256, 256))]


def _levels(output: object, size: Sequence[int]) -> list[Level]:
    if isinstance(output, torch.Tensor):
        raise ProbeError(f'its output is a single tensor of {output.ndim} dimensions, not a sequence of maps')
    if not isinstance(output, (list, tuple)) or not all(isinstance(x, torch.Tensor) for x in output):
        inner = sorted({type(x).__name__ for x in output}) if isinstance(output, (list, tuple)) else []
        raise ProbeError(
            f'its output is a {type(output).__name__} of {", ".join(inner) or "other things"}, not of maps'
        )
    if not all(x.ndim in (2, 3, 4) for x in output):
        raise ProbeError(f'its outputs are tensors of {sorted({x.ndim for x in output})} dimensions, not maps')
    return [Level(x.shape[1], _stride(x, size) if x.ndim == 4 else x.ndim - 2 and -1) for x in output]


def _stride(x: torch.Tensor, size: Sequence[int]) -> int:
    """The power of two nearest to the ratio of sizes; borders make it inexact."""
    return 2 ** max(round(math.log2(size[0] / x.shape[2])), 0)
