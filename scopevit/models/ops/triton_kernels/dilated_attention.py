"""GSDA's attention in one kernel each way, straight from the map: no token is moved before or after it.

A program has one head, keeps that head's bias in registers and walks over groups. A group's tokens
are gathered by their strides; its logits, at most 64 x 64, fit into one tile, so the backward pass
computes the weights again and needs neither the output nor their sums. A program's gradients of the
bias leave as one partial sum, in a fixed order.

Shape legend: as in layers/gsda.py. K = 2g - 1 offsets a side.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..positions import layout
from . import multiprocessors

LOG2_E = tl.constexpr(1.4426950408889634)
FORWARD, BACKWARD = (2, 4), (4, 4)
"""Warps of a program, and programs for each multiprocessor: the fastest of projects/speed/gpu_kernels.py on an H200."""


@triton.jit
def _load_bias(table, head, rows, cols, GRID: tl.constexpr, HEADS: tl.constexpr, T: tl.constexpr):
    """One head's bias (T, T) of a rows x cols grid, as exponents of 2; 0 beyond the grid."""
    query = tl.arange(0, T)[:, None]
    key = tl.arange(0, T)[None, :]
    offset = (query // cols - key // cols + GRID - 1) * (2 * GRID - 1) + query % cols - key % cols + GRID - 1
    inside = (query < rows * cols) & (key < rows * cols)
    return tl.load(table + offset * HEADS + head, mask=inside, other=0.0).to(tl.float32) * LOG2_E


@triton.jit
def _tokens_of(group, H, W, sh, sw, rows, cols, T: tl.constexpr):
    """Where a group's tokens lie in (B, H, W), and which of the T are not padding."""
    place = tl.arange(0, T)
    row = place // cols * sh + group // sw % sh
    col = place % cols * sw + group % sw
    image = (group // (sh * sw)).to(tl.int64)
    return (image * H + row) * W + col, (place < rows * cols) & (row < H) & (col < W)


@triton.jit
def _weights(q, k, bias, is_real, scale, PRECISION: tl.constexpr):
    """Softmax over the real keys: (T, T)."""
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2_E) + bias
    logits = tl.where(is_real[None, :], logits, float('-inf'))
    weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def _forward_kernel(
    qkv, table, output, groups, H, W, sh, sw, rows, cols, scale,
    GRID: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    channel = head * D + tl.arange(0, D)[None, :]
    bias = _load_bias(table, head, rows, cols, GRID, HEADS, T)
    for group in range(tl.program_id(0) // HEADS, groups, tl.num_programs(0) // HEADS):
        token, is_real = _tokens_of(group, H, W, sh, sw, rows, cols, T)
        source = qkv + token[:, None] * (3 * C) + channel
        q = tl.load(source, mask=is_real[:, None], other=0.0)
        k = tl.load(source + C, mask=is_real[:, None], other=0.0)
        v = tl.load(source + 2 * C, mask=is_real[:, None], other=0.0)
        weights = _weights(q, k, bias, is_real, scale, PRECISION)
        o = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        tl.store(output + token[:, None] * C + channel, o.to(output.dtype.element_ty), mask=is_real[:, None])


@triton.jit
def _backward_kernel(
    qkv, table, grad, grad_qkv, grad_bias, groups, H, W, sh, sw, rows, cols, scale,
    GRID: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    channel = head * D + tl.arange(0, D)[None, :]
    bias = _load_bias(table, head, rows, cols, GRID, HEADS, T)
    total = tl.zeros((T, T), tl.float32)
    for group in range(tl.program_id(0) // HEADS, groups, tl.num_programs(0) // HEADS):
        token, is_real = _tokens_of(group, H, W, sh, sw, rows, cols, T)
        source = token[:, None] * (3 * C) + channel
        q = tl.load(qkv + source, mask=is_real[:, None], other=0.0)
        k = tl.load(qkv + source + C, mask=is_real[:, None], other=0.0)
        v = tl.load(qkv + source + 2 * C, mask=is_real[:, None], other=0.0)
        do = tl.load(grad + token[:, None] * C + channel, mask=is_real[:, None], other=0.0)
        weights = _weights(q, k, bias, is_real, scale, PRECISION)
        dv = tl.dot(tl.trans(weights).to(v.dtype), do, input_precision=PRECISION)
        dw = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        ds = weights * (dw - tl.sum(weights * dw, 1)[:, None])
        total += ds  # of padded queries it is 0, as their `do` is
        ds = (ds * scale).to(q.dtype)
        dq = tl.dot(ds, k, input_precision=PRECISION)
        dk = tl.dot(tl.trans(ds), q, input_precision=PRECISION)
        tl.store(grad_qkv + source, dq.to(grad_qkv.dtype.element_ty), mask=is_real[:, None])
        tl.store(grad_qkv + source + C, dk.to(grad_qkv.dtype.element_ty), mask=is_real[:, None])
        tl.store(grad_qkv + source + 2 * C, dv.to(grad_qkv.dtype.element_ty), mask=is_real[:, None])
    query = tl.arange(0, T)[:, None]
    tl.store(grad_bias + (tl.program_id(0) * T + query) * T + tl.arange(0, T)[None, :], total)


@triton.jit
def _gather_kernel(grad_bias, grad_table, rows, cols, GRID: tl.constexpr, HEADS: tl.constexpr, T: tl.constexpr):
    """Sum the gradients (h, T, T) of all pairs of tokens with one offset; a program has an offset and a head."""
    offset, head = tl.program_id(0), tl.program_id(1)
    query = tl.arange(0, T)
    row = query // cols - (offset // (2 * GRID - 1) - GRID + 1)
    col = query % cols - (offset % (2 * GRID - 1) - GRID + 1)
    exists = (query < rows * cols) & (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    pairs = tl.load(grad_bias + (head * T + query) * T + row * cols + col, mask=exists, other=0.0)
    tl.store(grad_table + offset * HEADS + head, tl.sum(pairs, 0))


def _plan(qkv: Tensor, heads: int, grid: int, warps: int, per_multiprocessor: int) -> tuple:
    """Number of programs, sizes that both kernels take, and constants of the compilation."""
    B, H, W, C3 = qkv.shape
    rows, cols, sh, sw = layout(H, W, grid)
    D = C3 // 3 // heads
    groups = B * sh * sw
    programs = heads * min(groups, -(-multiprocessors(qkv) * per_multiprocessor // heads))
    constants = dict(
        GRID=grid,
        HEADS=heads,
        D=D,
        T=max(16, triton.next_power_of_2(rows * cols)),
        PRECISION='ieee' if qkv.dtype == torch.float32 else 'tf32',  # of half types it says nothing
        num_warps=warps,
    )
    return programs, (groups, H, W, sh, sw, rows, cols, D**-0.5), constants


def forward(qkv: Tensor, table: Tensor, heads: int, grid: int) -> Tensor:
    """qkv (B, H, W, 3C) and the bias of each offset (K*K, h) -> (B, H, W, C)."""
    qkv, table = qkv.contiguous(), table.contiguous()
    output = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
    if qkv.numel():
        programs, sizes, constants = _plan(qkv, heads, grid, *FORWARD)
        _forward_kernel[(programs,)](qkv, table, output, *sizes, **constants)
    return output


def backward(grad: Tensor, qkv: Tensor, table: Tensor, heads: int, grid: int) -> tuple:
    """Gradients of qkv and of the table, the latter in float32."""
    grad, qkv, table = grad.contiguous(), qkv.contiguous(), table.contiguous()
    grad_qkv = torch.empty_like(qkv)
    if not qkv.numel():
        return grad_qkv, table.new_zeros(table.shape, dtype=torch.float32)
    programs, sizes, constants = _plan(qkv, heads, grid, *BACKWARD)
    T, (rows, cols) = constants['T'], sizes[5:7]
    partial = table.new_empty(programs // heads, heads, T, T, dtype=torch.float32)
    _backward_kernel[(programs,)](qkv, table, grad, grad_qkv, partial, *sizes, **constants)
    grad_table = table.new_empty(table.shape, dtype=torch.float32)
    _gather_kernel[(len(table), heads)](
        partial.sum(dim=0), grad_table, rows, cols, GRID=grid, HEADS=heads, T=T, num_warps=1
    )
    return grad_qkv, grad_table
