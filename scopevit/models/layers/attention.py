"""Scaled dot-product attention: on CPUs by a kernel for narrow heads, attention.cpp, elsewhere by PyTorch.

Shape legend: B batch, h heads, N queries, M keys, d channels of a head.
"""

import ctypes
import math
import sysconfig
from pathlib import Path
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .common import runs_eagerly_on_cpu

HEAD_CHANNELS = (16, 32, 64)
"""Channels d of a head for which there is a kernel."""


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Attention with logits scaled by 1/sqrt(d), ``bias`` added to them.

    Args:
        q: (B, h, N, d).
        k: (B, h, M, d).
        v: (B, h, M, d).
        bias: (1, h, N, M); -inf keeps a query from a key, but each query needs one.

    Returns:
        (B, h, N, d).
    """
    if _kernel_serves(q, k, v, bias):
        return _KernelAttention.apply(q, k, v, bias)
    if bias is None or q.device.type != 'cpu' or not bias.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # The CPU's fused kernel cannot learn a bias, and what PyTorch falls back on guards against
    # queries without any key, which do not occur: it takes twice as many passes over the logits.
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return logits.add_(bias).softmax(dim=-1) @ v


class _Tensor(ctypes.Structure):
    """``Tensor`` of attention.cpp."""

    _fields_ = [('data', ctypes.c_void_p), ('strides', ctypes.c_int64 * 3)]

    def __init__(self, tensor: Optional[Tensor]) -> None:
        if tensor is not None:
            super().__init__(tensor.data_ptr(), tensor.stride()[:3])
        self.tensor = tensor  # keeps the memory


class _Sizes(ctypes.Structure):
    """``Sizes`` of attention.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ('batch', 'heads', 'queries', 'keys')]


def _load_kernel() -> Optional[ctypes.CDLL]:
    """The library that was built for this CPU when scopevit was installed; None if there is none."""
    name = f'_attention_{torch.backends.cpu.get_cpu_capability().lower()}'
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(name + sysconfig.get_config_var('EXT_SUFFIX'))))
    except OSError:
        return None
    library.attention_forward.argtypes = [_Sizes, ctypes.c_int64, *[_Tensor] * 6, ctypes.c_int]
    library.attention_backward.argtypes = [_Sizes, ctypes.c_int64, *[_Tensor] * 11, *[ctypes.c_int64] * 2, ctypes.c_int]
    return library


KERNEL = _load_kernel()

_functorch_is_active = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)


def _kernel_serves(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor]) -> bool:
    tensors = (q, k, v) if bias is None else (q, k, v, bias)
    B, h, N, d = q.shape
    return (
        KERNEL is not None
        and all(runs_eagerly_on_cpu(t) and t.dtype == torch.float32 for t in tensors)
        and d in HEAD_CHANNELS
        and k.shape == v.shape == (B, h, k.shape[2], d)
        and (bias is None or bias.shape == (1, h, N, k.shape[2]))
        and q.numel() > 0
        and k.numel() > 0
        and not _functorch_is_active()
    )


# As operators of torch the kernel's calls are seen by the profiler and by what counts operations.
_OPERATORS = torch.library.Library('scopevit', 'DEF')
_OPERATORS.define('attention(Tensor q, Tensor k, Tensor v, Tensor? bias) -> (Tensor, Tensor)')
_OPERATORS.define(
    'attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor output, Tensor log_sums, '
    'bool learns_bias) -> (Tensor, Tensor, Tensor, Tensor)'
)


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Output (B, h, N, d), and per query the base-2 logarithm of the sum of its weights (B, h, 1, N)."""
    B, h, N, d = q.shape
    output = q.new_empty(B, N, h, d).transpose(1, 2)
    log_sums = q.new_empty(B, h, 1, N)
    tensors = [_Tensor(t) for t in (q, k, v, _lay_out(bias), output, log_sums)]
    KERNEL.attention_forward(_Sizes(B, h, N, k.shape[2]), d, *tensors, torch.get_num_threads())
    return output, log_sums


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Optional[Tensor],
    output: Tensor,
    log_sums: Tensor,
    learns_bias: bool,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and, if it is learnt, the bias; else the last is empty."""
    B, h, N, d = q.shape
    M, threads = k.shape[2], torch.get_num_threads()
    # Each thread gets about four parts of the work.
    chunks, splits, grad_bias = B, 1, None
    if learns_bias:
        chunks = min(B, -(-4 * threads // h))
        grad_bias = q.new_zeros(chunks, h, M, N + -N % 32)
    else:
        splits = min(-(-N // 32), -(-4 * threads // (B * h)))
    grad_q = q.new_empty(B, N, h, d).transpose(1, 2)
    grad_k, grad_v = q.new_empty(2, splits * B, h, M, d)
    tensors = (q, k, v, _lay_out(bias), output, log_sums, grad, grad_q, grad_k, grad_v, grad_bias)
    tensors = [_Tensor(t) for t in tensors]
    KERNEL.attention_backward(_Sizes(B, h, N, M), d, *tensors, chunks, splits, threads)
    if splits > 1:
        grad_k, grad_v = (t.view(splits, B, h, M, d).sum(dim=0) for t in (grad_k, grad_v))
    if grad_bias is None:
        return grad_q, grad_k, grad_v, q.new_empty(0)
    return grad_q, grad_k, grad_v, (grad_bias.sum(dim=0, keepdim=True) * d**0.5).transpose(2, 3)[:, :, :N]


def _lay_out(bias: Optional[Tensor]) -> Optional[Tensor]:
    """(1, h, N, M) -> (1, h, M, N), N padded to whole vectors, in powers of 2 instead of e."""
    if bias is None:
        return None
    return F.pad(bias * math.log2(math.e), (0, 0, 0, -bias.shape[2] % 32)).transpose(2, 3).contiguous()


_OPERATORS.impl('attention', _forward, 'CPU')
_OPERATORS.impl('attention_backward', _backward, 'CPU')


class _KernelAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor]) -> Tensor:
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        output, log_sums = torch.ops.scopevit.attention(q, k, v, bias)
        ctx.save_for_backward(q, k, v, bias, output, log_sums)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        learns_bias = ctx.needs_input_grad[3]
        *grads, grad_bias = torch.ops.scopevit.attention_backward(grad, *ctx.saved_tensors, learns_bias)
        return *grads, grad_bias if learns_bias else None
