"""The MLP branch of a block: layer norm, linear, GELU, linear, layer scale and residual in one pass over memory.

The hidden channels, four times as many as a token's, never leave a program. The backward pass computes
them again, by products of matrices, so a training keeps of the branch its input alone. It needs neither the
branch's output nor a gradient scaled by gamma: with g the gradient, stochastic depth applied, and G = g^T h,

    dW2 = gamma * G      dgamma = sum_k W2 * G + b2 * sum_m g      dh = g (gamma * W2)

Arithmetic is float32 but for the products' inputs, which are of the weights' half type.

Shape legend: M rows (tokens), C channels, K hidden channels, P programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .narrow import _normalise, _tile, norm_backward_kernel, tiling

ROWS, STEP, WARPS, STAGES = 64, 32, 4, 2
"""Of a forward program: rows and hidden channels that it has at a time, warps, and stages of its loads; for each C
among the fastest of projects/speed/gpu_kernels.py on an H100."""
BLOCK = 1024
"""Elements that a program of the conversion has."""
SQRT_HALF = tl.constexpr(0.7071067811865476)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)


@triton.jit
def _convert_kernel(w1, w2, gamma, halves, C, K, SCALES: tl.constexpr, N: tl.constexpr):
    """W1, W2 and, if there is a gamma, gamma * W2 in a half type, into the three parts of ``halves``."""
    place = tl.program_id(0) * N + tl.arange(0, N)
    exists = place < C * K
    second = tl.load(w2 + place, mask=exists, other=0.0).to(tl.float32)
    tl.store(halves + place, tl.load(w1 + place, mask=exists, other=0.0).to(halves.dtype.element_ty), mask=exists)
    tl.store(halves + C * K + place, second.to(halves.dtype.element_ty), mask=exists)
    if SCALES:
        second *= tl.load(gamma + place // K, mask=exists, other=0.0).to(tl.float32)
        tl.store(halves + 2 * C * K + place, second.to(halves.dtype.element_ty), mask=exists)


@triton.jit
def _forward_kernel(
    x, norm_weight, norm_bias, w1, b1, w2, b2, gamma, keep, output, M, tokens, eps,
    C: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr,
    SCALES: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row, channel, place, exists = _tile(tl.program_id(0), M, C, ROWS, C)
    y, _ = _normalise(tl.load(x + place, mask=exists, other=0.0).to(tl.float32), exists, C, eps)
    y *= tl.load(norm_weight + channel).to(tl.float32)[None, :]
    y = (y + tl.load(norm_bias + channel).to(tl.float32)[None, :]).to(w1.dtype.element_ty)
    total = tl.zeros((ROWS, C), tl.float32)
    for start in range(0, K, STEP):
        hidden = start + tl.arange(0, STEP)
        # (STEP, C) and (C, STEP)
        first = tl.load(w1 + hidden[:, None] * C + channel[None, :])
        second = tl.load(w2 + channel[:, None] * K + hidden[None, :])
        h = tl.dot(y, tl.trans(first), input_precision=PRECISION) + tl.load(b1 + hidden).to(tl.float32)[None, :]
        h = 0.5 * h * (1 + tl.erf(h * SQRT_HALF))
        total = tl.dot(h.to(w2.dtype.element_ty), tl.trans(second), total, input_precision=PRECISION)
    total += tl.load(b2 + channel).to(tl.float32)[None, :]
    if SCALES:
        total *= tl.load(gamma + channel).to(tl.float32)[None, :]
    if DROPS:
        total *= tl.load(keep + row // tokens, mask=row < M, other=0.0).to(tl.float32)[:, None]
    total += tl.load(x + place, mask=exists, other=0.0).to(tl.float32)  # again: it need not be kept meanwhile
    tl.store(output + place, total.to(output.dtype.element_ty), mask=exists)


@triton.jit
def _prepare_kernel(
    grad, x, norm_weight, norm_bias, keep, normed, kept, partial, M, tokens, eps,
    C: tl.constexpr, DROPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What the products take: the normed rows, and the gradient with stochastic depth; sums of the latter."""
    channels = tl.arange(0, WIDTH)
    w = tl.load(norm_weight + channels, mask=channels < C, other=0.0).to(tl.float32)
    b = tl.load(norm_bias + channels, mask=channels < C, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(tl.program_id(0), tl.cdiv(M, ROWS), tl.num_programs(0)):
        row, _, place, exists = _tile(start, M, C, ROWS, WIDTH)
        y, _ = _normalise(tl.load(x + place, mask=exists, other=0.0).to(tl.float32), exists, C, eps)
        tl.store(normed + place, (y * w[None, :] + b[None, :]).to(normed.dtype.element_ty), mask=exists)
        g = tl.load(grad + place, mask=exists, other=0.0).to(tl.float32)
        if DROPS:
            g *= tl.load(keep + row // tokens, mask=row < M, other=0.0).to(tl.float32)[:, None]
        total += g
        tl.store(kept + place, g.to(kept.dtype.element_ty), mask=exists)
    tl.store(partial + tl.program_id(0) * C + channels, tl.sum(total, 0), mask=channels < C)


@triton.jit
def _gelu_kernel(h, grad, b1, partial, M, C: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """In place: of ``h``, without its bias, its GELU; of ``grad`` the gradient before the GELU; sums of the latter."""
    channels = tl.arange(0, WIDTH)
    b = tl.load(b1 + channels, mask=channels < C, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(tl.program_id(0), tl.cdiv(M, ROWS), tl.num_programs(0)):
        _, _, place, exists = _tile(start, M, C, ROWS, WIDTH)
        v = tl.load(h + place, mask=exists, other=0.0).to(tl.float32) + b[None, :]
        probability = 0.5 * (1 + tl.erf(v * SQRT_HALF))
        tl.store(h + place, (v * probability).to(h.dtype.element_ty), mask=exists)
        slope = probability + v * INV_SQRT_2PI * tl.exp(-0.5 * v * v)
        g = tl.load(grad + place, mask=exists, other=0.0).to(tl.float32) * slope
        total += g
        tl.store(grad + place, g.to(grad.dtype.element_ty), mask=exists)
    tl.store(partial + tl.program_id(0) * C + channels, tl.sum(total, 0), mask=channels < C)


@triton.jit
def _sum_partial(partial, programs, column, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """Sum over the programs of their columns ``column``, (WIDTH,)."""
    total = tl.zeros((64, WIDTH), tl.float32)
    for start in range(0, programs, 64):
        program = start + tl.arange(0, 64)
        place = program[:, None] * STRIDE + column[None, :]
        total += tl.load(partial + place, mask=(program < programs)[:, None] & (column < STRIDE)[None, :], other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _finish_kernel(
    product, w2, b2, gamma, of_kept, of_hidden, of_norm, programs, hidden_programs,
    grad_w2, grad_b2, grad_gamma, grad_b1, grad_norm,
    C: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, SHARE: tl.constexpr,
):  # fmt: skip
    """The weights' gradients of sums; a program has an output channel, and its share of the hidden ones."""
    c = tl.program_id(0)
    hidden = tl.arange(0, WIDTH)
    one = c + tl.arange(0, 1)
    scale = tl.load(gamma + c).to(tl.float32)
    row = tl.load(product + c * K + hidden, mask=hidden < K, other=0.0)
    tl.store(grad_w2 + c * K + hidden, row * scale, mask=hidden < K)
    sum_kept = _sum_partial(of_kept, programs, one, C, 1)
    of_scale = tl.sum(row * tl.load(w2 + c * K + hidden, mask=hidden < K, other=0.0).to(tl.float32), 0)
    tl.store(grad_gamma + one, of_scale + tl.load(b2 + one).to(tl.float32) * sum_kept)
    tl.store(grad_b2 + one, scale * sum_kept)
    tl.store(grad_norm + one, _sum_partial(of_norm, programs, one, C, 1))
    tl.store(grad_norm + C + one, _sum_partial(of_norm + programs * C, programs, one, C, 1))
    share = c * SHARE + tl.arange(0, SHARE)
    tl.store(grad_b1 + share, _sum_partial(of_hidden, hidden_programs, share, K, SHARE), mask=share < K)


def convert(w1: Tensor, w2: Tensor, gamma: Tensor, dtype: torch.dtype) -> Tensor:
    """W1 (K, C), W2 (C, K) and gamma * W2 in a half type: (3, C*K)."""
    K, C = w1.shape
    halves = w1.new_empty(3, C * K, dtype=dtype)
    _convert_kernel[(triton.cdiv(C * K, BLOCK),)](w1, w2, gamma, halves, C, K, SCALES=gamma.numel() > 0, N=BLOCK)
    return halves


def forward(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    gamma: Tensor, keep: Tensor, eps: float,
) -> Tensor:  # fmt: skip
    """(B, ..., C) -> (B, ..., C), products of ``w1``'s type; ``gamma`` and ``keep`` may be empty: 1."""
    x, (K, C) = x.contiguous(), w1.shape
    output = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, gamma.dtype))
    M = x.numel() // C
    if M:
        constants = dict(C=C, K=K, ROWS=ROWS, STEP=STEP, SCALES=gamma.numel() > 0, DROPS=keep.numel() > 0)
        _forward_kernel[(triton.cdiv(M, ROWS),)](
            x, norm_weight, norm_bias, w1, b1, w2, b2, gamma, keep, output, M, M // len(x), eps,
            **constants, PRECISION='ieee' if w1.dtype == torch.float32 else 'tf32',  # of half types it says nothing
            num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
    return output


def branch(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    gamma: Tensor, keep: Tensor, eps: float, dtype: torch.dtype, trains: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`forward`, and the weights in a half type where the backward pass or the kernel needs them."""
    halves = w1.new_empty(0, dtype=dtype)
    if trains or w1.dtype != dtype:
        halves = convert(w1, w2, gamma, dtype)
        w1, w2 = halves[0].view_as(w1), halves[1].view_as(w2)
    return forward(x, norm_weight, norm_bias, w1, b1, w2, b2, gamma, keep, eps), halves


def backward(
    grad: Tensor, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    gamma: Tensor, keep: Tensor, halves: Tensor, eps: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, in its type, and in float32 of the norm's (2, C), w1, b1, w2, b2 and gamma."""
    grad, x, (C, K) = grad.contiguous(), x.contiguous(), w2.shape
    wide = w2.new_empty(0, dtype=torch.float32)
    if not x.numel():
        return torch.empty_like(x), *(wide.new_zeros(size) for size in ((2, C), (K, C), (K,), (C, K), (C,), (C,)))
    M, _, programs, constants = tiling(x)
    normed, kept = x.new_empty(2, M, C, dtype=halves.dtype)
    of_kept, of_norm = wide.new_empty(programs, C), wide.new_empty(2, programs, C)
    _prepare_kernel[(programs,)](
        grad, x, norm_weight, norm_bias, keep, normed, kept, of_kept, M, M // len(x), eps,
        DROPS=keep.numel() > 0, **constants,
    )  # fmt: skip
    first, scaled = halves[0].view(K, C), halves[2].view(C, K)
    hidden, of_hidden = normed @ first.t(), kept @ scaled
    _, _, hidden_programs, hidden_constants = tiling(hidden)
    of_b1 = wide.new_empty(hidden_programs, K)
    _gelu_kernel[(hidden_programs,)](hidden, of_hidden, b1, of_b1, M, **hidden_constants)
    product, grad_w1 = _product(kept, hidden), _product(of_hidden, normed)
    of_normed = torch.mm(of_hidden, first, out=normed)
    grad_x = torch.empty_like(x)
    norm_backward_kernel[(programs,)](of_normed, grad, x, norm_weight, grad_x, of_norm, M, eps, ADDS=True, **constants)
    grad_w2, grad_norm = wide.new_empty(C, K), wide.new_empty(2, C)
    grad_b1, grad_b2, grad_gamma = (wide.new_empty(n) for n in (K, C, C))
    _finish_kernel[(C,)](
        product, w2, b2, gamma, of_kept, of_b1, of_norm, programs, hidden_programs,
        grad_w2, grad_b2, grad_gamma, grad_b1, grad_norm,
        C=C, K=K, WIDTH=triton.next_power_of_2(K), SHARE=triton.next_power_of_2(triton.cdiv(K, C)),
    )  # fmt: skip
    return grad_x, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2, grad_gamma


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a^T b in float32."""
    if a.is_cuda and a.dtype != torch.float32 and hasattr(torch.ops.aten.mm, 'dtype'):  # PyTorch 2.8
        return torch.mm(a.t(), b, out_dtype=torch.float32)
    return (a.t() @ b).float()
