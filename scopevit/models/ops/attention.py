"""Scaled dot-product attention: on CPUs by a kernel for narrow heads, attention.cpp, elsewhere by PyTorch.

The kernel is compiled when scopevit is installed. It serves float32, in training too; where it
does not, or is not there, PyTorch computes the same function.

Shape legend: B batch, h heads, N queries, M keys, d channels of a head.
"""

import ctypes
import math
import sysconfig
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .calls import is_plain_call, is_watched

HEAD_CHANNELS = (16, 32, 64)
"""Channels d of a head for which there is a kernel."""
MOST_ENTRIES = 65535
"""Batch entries that PyTorch's kernels for GPUs take."""
KERNEL_VERSION = 1
"""``attention_version`` of attention.cpp that is called here."""
BLOCK = 32
"""Queries that the kernel treats together, on some CPUs half as many; it reads a bias in whole blocks."""


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention with logits scaled by 1/sqrt(d), ``bias`` added to them.

    Args:
        q: (B, h, N, d).
        k: (B, h, M, d).
        v: (B, h, M, d).
        bias: (1, h, N, M); -inf keeps a query from a key, but each query needs one that is not kept from it.

    Returns:
        (B, h, N, d).
    """
    if _kernel_serves(q, k, v, bias):
        return torch.ops.scopevit.attention(q, k, v, bias)[0]
    if q.device.type == 'cuda' and (bias is not None or q.shape[0] > MOST_ENTRIES):
        return _within_limits(q, k, v, bias)
    # PyTorch's fused kernel for CPUs cannot learn a bias, and what it falls back on guards against
    # queries without any key, which do not occur: it takes twice as many passes over the logits.
    # Nor does FlopCounterMode know it.
    learns_bias = bias is not None and bias.requires_grad and not torch.jit.is_tracing()
    if q.device.type != 'cpu' or not (learns_bias or is_watched()):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (logits if bias is None else logits.add_(bias)).softmax(dim=-1) @ v


def _within_limits(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """PyTorch's attention on GPUs where one of its kernels would fail.

    From 65,536 batch entries on the kernels' grids are too large (pytorch #142228, #177985, #180718). Heads are not
    split: GSDA has so many only on padded maps of over 1,448 x 1,448 tokens, images of 5,792 x 5,792. cuDNN's
    gradient of q is NaN where a bias makes a row's sum of weights very small (pytorch #196678).
    """
    inputs = zip(*(x.split(MOST_ENTRIES) for x in (q, k, v)))
    kernels = [] if bias is None else _kernels_but_cudnn()
    with sdpa_kernel(kernels) if kernels else nullcontext():
        parts = [F.scaled_dot_product_attention(q, k, v, attn_mask=bias) for q, k, v in inputs]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _kernels_but_cudnn() -> list[SDPBackend]:
    """PyTorch's kernels for attention that are switched on; the compiler cannot ask."""
    flags = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    }
    return [kernel for kernel, is_on in flags.items() if torch.compiler.is_compiling() or is_on()]


class _Tensor(ctypes.Structure):
    """``Tensor`` of attention.cpp."""

    _fields_ = [('data', ctypes.c_void_p), ('strides', ctypes.c_int64 * 3)]

    def __init__(self, tensor: Tensor | None) -> None:
        if tensor is not None:
            super().__init__(tensor.data_ptr(), tensor.stride()[:3])
        self.tensor = tensor  # keeps the memory


class _Sizes(ctypes.Structure):
    """``Sizes`` of attention.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ('batch', 'heads', 'queries', 'keys')]


def _load_kernel() -> ctypes.CDLL | None:
    """The library that was built for CPUs of this kind when scopevit was installed; None if there is none."""
    if not hasattr(torch.compiler, 'is_exporting'):
        return None  # before PyTorch 2.7 the kernel could get into exported graphs, which others cannot run
    name = f'_attention_{torch.backends.cpu.get_cpu_capability().lower()}'
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(name + sysconfig.get_config_var('EXT_SUFFIX'))))
        version = library.attention_version()
    except (OSError, AttributeError):
        return None
    if version != KERNEL_VERSION:  # left from another version of scopevit
        return None
    library.attention_forward.argtypes = [_Sizes, ctypes.c_int64, *[_Tensor] * 6, ctypes.c_int]
    library.attention_backward.argtypes = [_Sizes, ctypes.c_int64, *[_Tensor] * 11, *[ctypes.c_int64] * 2, ctypes.c_int]
    library.attention_forward.restype = library.attention_backward.restype = None
    return library


KERNEL: Any = _load_kernel()
"""The compiled kernel, or None where PyTorch's serves."""


def _kernel_serves(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    return (
        KERNEL is not None
        # Exported graphs are for machines without the kernel as well; of derivatives it knows the ordinary ones alone.
        and all(is_plain_call(x) for x in (q, k, v, bias) if x is not None)
        and _kernel_takes(q, k, v, bias)
        # Where fused attention is switched off, see torch.nn.attention.sdpa_kernel. The compiler cannot ask.
        and (torch.compiler.is_compiling() or torch.backends.cuda.flash_sdp_enabled())
    )


def _kernel_takes(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether types and shapes are the kernel's."""
    B, h, N, d = q.shape
    return (
        all(x.dtype == torch.float32 and x.device.type == 'cpu' for x in (q, k, v, bias) if x is not None)
        and d in HEAD_CHANNELS
        and k.shape == v.shape == (B, h, k.shape[2], d)
        and (bias is None or bias.shape == (1, h, N, k.shape[2]))
        and q.numel() > 0
        and k.numel() > 0
    )


def _check(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> None:
    if not _kernel_takes(q, k, v, bias):
        raise ValueError(f'scopevit::attention is for float32 and heads of {HEAD_CHANNELS} channels; use attention()')


# As operators of torch the kernel's calls can be compiled, and are seen by the profiler and by what counts operations.
_LIBRARY = torch.library.Library('scopevit', 'DEF')
_LIBRARY.define('attention(Tensor q, Tensor k, Tensor v, Tensor? bias) -> (Tensor, Tensor)')
_LIBRARY.define(
    'attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor output, Tensor log_sums, '
    'bool learns_bias) -> (Tensor, Tensor, Tensor, Tensor)'
)


def _empty_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    B, h, N, d = q.shape
    # Heads of a token lie side by side, as the next layer wants them.
    return q.new_empty(B, N, h, d).transpose(1, 2), q.new_empty(B, h, 1, N)


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output (B, h, N, d), and per query the base-2 logarithm of the sum of its weights (B, h, 1, N)."""
    _check(q, k, v, bias)
    B, h, N, d = q.shape
    output, log_sums = _empty_outputs(q)
    tensors = [_Tensor(x) for x in (*map(_dense, (q, k, v)), _lay_out(bias), output, log_sums)]
    KERNEL.attention_forward(_Sizes(B, h, N, k.shape[2]), d, *tensors, torch.get_num_threads())
    return output, log_sums


def _empty_gradients(q: Tensor, k: Tensor, learns_bias: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, h, N, _ = q.shape
    M = k.shape[2]
    bias = q.new_empty(1, h, M, N + -N % BLOCK).transpose(2, 3)[:, :, :N] if learns_bias else q.new_empty(0)
    return _empty_outputs(q)[0], q.new_empty(k.shape), q.new_empty(k.shape), bias


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    output: Tensor,
    log_sums: Tensor,
    learns_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and, if it is learnt, the bias; else the last is empty."""
    _check(q, k, v, bias)
    B, h, N, d = q.shape
    M, threads = k.shape[2], torch.get_num_threads()
    # Each thread gets about four parts of the work.
    chunks, splits, grad_bias = B, 1, None
    if learns_bias:
        chunks = min(B, -(-4 * threads // h))
        grad_bias = q.new_zeros(chunks, h, M, N + -N % BLOCK)
    else:
        splits = min(-(-N // BLOCK), -(-4 * threads // (B * h)))
    grad_q = _empty_outputs(q)[0]
    grad_k, grad_v = (q.new_empty(splits * B, h, M, d) for _ in range(2))
    inputs = (*map(_dense, (q, k, v)), _lay_out(bias), output, log_sums, _dense(grad))
    tensors = [_Tensor(x) for x in (*inputs, grad_q, grad_k, grad_v, grad_bias)]
    KERNEL.attention_backward(_Sizes(B, h, N, M), d, *tensors, chunks, splits, threads)
    if splits > 1:
        grad_k, grad_v = (x.view(splits, B, h, M, d).sum(dim=0) for x in (grad_k, grad_v))
    if grad_bias is None:
        return grad_q, grad_k, grad_v, q.new_empty(0)
    return grad_q, grad_k, grad_v, (grad_bias.sum(dim=0, keepdim=True) * d**0.5).transpose(2, 3)[:, :, :N]


def _dense(x: Tensor) -> Tensor:
    """With channels side by side, as the kernel reads them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _lay_out(bias: Tensor | None) -> Tensor | None:
    """(1, h, N, M) -> (1, h, M, N), N padded to whole vectors, in powers of 2 instead of e."""
    if bias is None:
        return None
    _, h, N, M = bias.shape
    padding = -N % BLOCK
    laid_out = bias.new_empty(1, h, M, N + padding)
    torch.mul(bias.transpose(2, 3), math.log2(math.e), out=laid_out[..., :N])
    laid_out[..., N:] = 0
    return laid_out


def _keep_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, grad: Tensor, _: Tensor | None) -> tuple:
    learns_bias = ctx.needs_input_grad[3]
    *grads, grad_bias = torch.ops.scopevit.attention_backward(grad, *ctx.saved_tensors, learns_bias)
    return *grads, (grad_bias if learns_bias else None)


def _refuse_second_derivative(ctx, *grads: Tensor) -> None:
    raise NotImplementedError(
        'fused attention has no second derivative. Except in compiled models, PyTorch computes it inside "with '
        'torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):" around the forward pass'
    )


if KERNEL is not None:
    _LIBRARY.impl('attention', _forward, 'CPU')
    _LIBRARY.impl('attention_backward', _backward, 'CPU')
    torch.library.register_fake('scopevit::attention', lambda q, k, v, bias: _empty_outputs(q), lib=_LIBRARY)
    torch.library.register_fake(
        'scopevit::attention_backward',
        lambda grad, q, k, v, bias, output, log_sums, learns_bias: _empty_gradients(q, k, learns_bias),
        lib=_LIBRARY,
    )
    torch.library.register_autograd('scopevit::attention', _gradients, setup_context=_keep_for_backward, lib=_LIBRARY)
    torch.library.register_autograd('scopevit::attention_backward', _refuse_second_derivative, lib=_LIBRARY)
