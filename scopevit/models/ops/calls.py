"""When custom operators may be used: calls that are traced, transformed or replaced fall back to PyTorch."""

import functools
from collections.abc import Callable
from types import NoneType
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

Constant = TypeVar('Constant')
Layer = TypeVar('Layer', bound=nn.Module)


def is_exporting() -> bool:
    """Whether torch.export traces this call.

    ``torch.compiler.is_exporting`` is True to some versions of torch.compile, too (2.11). PyTorch before 2.7
    does not tell; there an exported graph serves sizes that need the same padding in GSDA.
    """
    return getattr(torch.compiler, '_is_exporting_flag', False)


def is_watched() -> bool:
    """Whether a mode sees each operator of this call. A compiler's own do not count."""
    return not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0


def is_plain_call(x: object) -> bool:
    """Whether ``x`` is neither traced nor watched, nor differentiated in a way of which a fused operator knows nothing.

    What watches operators, as FlopCounterMode does, knows those of PyTorch.
    """
    return (
        (torch.compiler.is_compiling() or (type(x) is Tensor and not is_watched()))
        and not is_exporting()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


def is_plain_layer(layer: nn.Module, *kinds: type[Layer]) -> TypeGuard[Layer]:
    """Whether calling ``layer`` does what one of these ``kinds`` does with its weights, and nothing else.

    It is not so where a tool has replaced the layer or its weights (quantization, adapters), or has hooks on it.
    """
    return (
        type(layer) in kinds
        and all(type(weight) in (nn.Parameter, Tensor, NoneType) for weight in layer._parameters.values())
        and 'forward' not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and not _has_any_global_hook()
    )


def constant(compute: Callable[..., Constant]) -> Callable[..., Constant]:
    """Keep what a function returns whose first argument is a tensor of which the device alone matters.

    The others are sizes and types; a parameter must have no part in it. Where that tensor is traced or
    transformed, all tensors belong to the trace, and nothing is kept.
    """

    @functools.cache
    def kept(device: torch.device, *arguments: object) -> Constant:
        with torch.inference_mode(False):  # it may be part of a training later
            return compute(torch.empty(0, device=device), *arguments)

    @functools.wraps(compute)
    def run(x: Tensor, *arguments: object) -> Constant:
        is_kept = not torch.compiler.is_compiling() and is_plain_call(x)
        if is_kept and x.is_cuda and torch.cuda.is_current_stream_capturing():
            is_kept = False  # it has no values before the graph runs
        return kept(x.device, *arguments) if is_kept else compute(x, *arguments)

    return run
