"""Layer norm of narrow rows, and a residual branch's closing, each in one pass over memory.

PyTorch's layer norm gives a row a block of 128 threads, of which a row of 32 channels leaves most
idle. Here a program has a tile of rows. Whatever the type of what is read, arithmetic is float32.

Shape legend: M rows (tokens), C channels, P programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import multiprocessors

TILE, WARPS = 1024, 4
"""Elements of a tile, and warps of a program: the fastest of projects/speed/gpu_kernels.py on an H200."""
PROGRAMS = 8
"""Programs of a backward pass for each multiprocessor; each has partial sums of the weights' gradients."""


@triton.jit
def _tile(start, M, C, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Rows, channels, where their elements lie, and which of them exist."""
    row = start * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    place = row.to(tl.int64)[:, None] * C + channel[None, :]
    return row, channel, place, (row < M)[:, None] & (channel < C)[None, :]


@triton.jit
def _normalise(x, exists, C, eps):
    """(x - mean) / deviation of each row, and 1 / deviation."""
    centred = tl.where(exists, x - (tl.sum(x, 1) / C)[:, None], 0.0)
    rdeviation = tl.rsqrt(tl.sum(centred * centred, 1) / C + eps)
    return centred * rdeviation[:, None], rdeviation


@triton.jit
def _norm_kernel(x, weight, bias, output, M, eps, C: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    _, channel, place, exists = _tile(tl.program_id(0), M, C, ROWS, WIDTH)
    w = tl.load(weight + channel, mask=channel < C, other=0.0).to(tl.float32)
    b = tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)
    y, _ = _normalise(tl.load(x + place, mask=exists, other=0.0).to(tl.float32), exists, C, eps)
    tl.store(output + place, (y * w[None, :] + b[None, :]).to(output.dtype.element_ty), mask=exists)


@triton.jit
def norm_backward_kernel(
    grad, residual, x, weight, grad_x, partial, M, eps,
    ADDS: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradient of a layer norm's input, with that of a residual if it ADDS one; sums for its weight and bias."""
    w = tl.load(weight + tl.arange(0, WIDTH), mask=tl.arange(0, WIDTH) < C, other=0.0).to(tl.float32)
    of_weight = tl.zeros((ROWS, WIDTH), tl.float32)
    of_bias = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(tl.program_id(0), tl.cdiv(M, ROWS), tl.num_programs(0)):
        _, _, place, exists = _tile(start, M, C, ROWS, WIDTH)
        y, rdeviation = _normalise(tl.load(x + place, mask=exists, other=0.0).to(tl.float32), exists, C, eps)
        g = tl.load(grad + place, mask=exists, other=0.0).to(tl.float32)
        of_weight += g * y
        of_bias += g
        g *= w[None, :]
        g -= (tl.sum(g, 1) / C)[:, None] + y * (tl.sum(g * y, 1) / C)[:, None]
        g *= rdeviation[:, None]
        if ADDS:
            g += tl.load(residual + place, mask=exists, other=0.0).to(tl.float32)
        tl.store(grad_x + place, g.to(grad_x.dtype.element_ty), mask=exists)
    channel = tl.arange(0, WIDTH)
    target = partial + tl.program_id(0) * C + channel
    tl.store(target, tl.sum(of_weight, 0), mask=channel < C)
    tl.store(target + tl.num_programs(0) * C, tl.sum(of_bias, 0), mask=channel < C)


@triton.jit
def _close_kernel(
    x, branch, gamma, keep, output, M, tokens,
    C: tl.constexpr, DROPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row, channel, place, exists = _tile(tl.program_id(0), M, C, ROWS, WIDTH)
    scale = tl.load(gamma + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    if DROPS:
        scale = scale * tl.load(keep + row // tokens, mask=row < M, other=0.0).to(tl.float32)[:, None]
    y = tl.load(x + place, mask=exists, other=0.0).to(tl.float32)
    y += tl.load(branch + place, mask=exists, other=0.0).to(tl.float32) * scale
    tl.store(output + place, y.to(output.dtype.element_ty), mask=exists)


@triton.jit
def _close_backward_kernel(
    grad, branch, gamma, keep, grad_branch, partial, M, tokens,
    C: tl.constexpr, DROPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    scale = tl.load(gamma + tl.arange(0, WIDTH), mask=tl.arange(0, WIDTH) < C, other=0.0).to(tl.float32)[None, :]
    of_gamma = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(tl.program_id(0), tl.cdiv(M, ROWS), tl.num_programs(0)):
        row, _, place, exists = _tile(start, M, C, ROWS, WIDTH)
        g = tl.load(grad + place, mask=exists, other=0.0).to(tl.float32)
        if DROPS:
            g *= tl.load(keep + row // tokens, mask=row < M, other=0.0).to(tl.float32)[:, None]
        of_gamma += g * tl.load(branch + place, mask=exists, other=0.0).to(tl.float32)
        tl.store(grad_branch + place, (g * scale).to(grad_branch.dtype.element_ty), mask=exists)
    channel = tl.arange(0, WIDTH)
    tl.store(partial + tl.program_id(0) * C + channel, tl.sum(of_gamma, 0), mask=channel < C)


def tiling(x: Tensor) -> tuple:
    """Rows M, tiles, programs of a backward pass, and constants of the compilation."""
    C = x.shape[-1]
    M = x.numel() // C
    width = triton.next_power_of_2(C)
    rows = max(1, TILE // width)
    tiles = -(-M // rows)
    return M, tiles, min(tiles, PROGRAMS * multiprocessors(x)), dict(C=C, ROWS=rows, WIDTH=width, num_warps=WARPS)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """(..., C) -> (..., C) of ``dtype``."""
    x = x.contiguous()
    output = x.new_empty(x.shape, dtype=dtype)
    if x.numel():
        M, tiles, _, constants = tiling(x)
        _norm_kernel[(tiles,)](x, weight, bias, output, M, eps, **constants)
    return output


def layer_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple:
    """Gradients of x, in its type, and of weight and bias, in float32."""
    grad, x = grad.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    if not x.numel():
        return grad_x, *(weight.new_zeros(len(weight), dtype=torch.float32) for _ in range(2))
    M, _, programs, constants = tiling(x)
    partial = weight.new_empty(2, programs, len(weight), dtype=torch.float32)
    norm_backward_kernel[(programs,)](grad, grad, x, weight, grad_x, partial, M, eps, ADDS=False, **constants)
    of_weight, of_bias = partial.sum(dim=1)
    return grad_x, of_weight, of_bias


def close_branch(x: Tensor, branch: Tensor, gamma: Tensor, keep: Tensor) -> Tensor:
    """x + branch * gamma (* keep, per image): (B, ..., C); ``keep`` is (B,), or empty where all are kept."""
    x, branch = x.contiguous(), branch.contiguous()
    output = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, gamma.dtype))
    if x.numel():
        M, tiles, _, constants = tiling(x)
        drops = keep.numel() > 0
        _close_kernel[(tiles,)](x, branch, gamma, keep, output, M, M // len(x), DROPS=drops, **constants)
    return output


def close_branch_backward(grad: Tensor, branch: Tensor, gamma: Tensor, keep: Tensor) -> tuple:
    """Gradients of branch, in its type, and of gamma, in float32."""
    grad, branch = grad.contiguous(), branch.contiguous()
    grad_branch = torch.empty_like(branch)
    if not grad.numel():
        return grad_branch, gamma.new_zeros(len(gamma), dtype=torch.float32)
    M, _, programs, constants = tiling(grad)
    partial = gamma.new_empty(programs, len(gamma), dtype=torch.float32)
    drops = keep.numel() > 0
    _close_backward_kernel[(programs,)](
        grad, branch, gamma, keep, grad_branch, partial, M, M // len(grad), DROPS=drops, **constants
    )
    return grad_branch, partial.sum(dim=0)
