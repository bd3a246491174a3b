"""Depthwise convolutions of parts of a map's channels, each with kernels of its own size, in one pass.

They read and write the whole map, channels last, so no part is copied out of it or back. A program has
some positions and 16 channels, all of one part. The gradient of a strided convolution takes only those
taps that a position takes part in.

Shape legend: map (B, H, W, C), output (B, OH, OW, C), K side of a part's kernels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..gpu import depthwise_side
from . import multiprocessors

ROWS, WEIGHT_ROWS = 64, 32
"""Positions that a program has at a time; one of the weights' gradient has eight taps of each."""
WIDTH = 16
"""Channels of a program."""
PROGRAMS = 8
"""Programs of the weights' gradient for each multiprocessor."""
MOST_PARTS, LARGEST = 3, 7


@triton.jit
def _positions(start, positions, H, W, ROWS: tl.constexpr):
    """Image, row and column of a tile's positions on an H x W map, and which of them exist."""
    place = start * ROWS + tl.arange(0, ROWS)
    return (place // (H * W)).to(tl.int64), place // W % H, place % W, place < positions


@triton.jit
def _convolve(
    x, weight, output, first, start, positions, H, W, OH, OW,
    C: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    PADDING: tl.constexpr = (STRIDE + K - 2) // 2
    image, row, col, exists = _positions(tl.program_id(0), positions, OH, OW, ROWS)
    channel = tl.arange(0, WIDTH)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for tap in range(K * K):
        y, z = row * STRIDE + tap // K - PADDING, col * STRIDE + tap % K - PADDING
        inside = exists & (y >= 0) & (y < H) & (z >= 0) & (z < W)
        place = ((image * H + y) * W + z)[:, None] * C + first + channel[None, :]
        w = tl.load(weight + (first - start + channel) * K * K + tap).to(tl.float32)
        total += tl.load(x + place, mask=inside[:, None], other=0.0).to(tl.float32) * w[None, :]
    place = ((image * OH + row) * OW + col)[:, None] * C + first + channel[None, :]
    tl.store(output + place, total.to(output.dtype.element_ty), mask=exists[:, None])


@triton.jit
def _spread(
    grad, weight, grad_x, first, start, positions, H, W, OH, OW,
    C: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient of the map."""
    PADDING: tl.constexpr = (STRIDE + K - 2) // 2
    SIDE: tl.constexpr = (K + STRIDE - 1) // STRIDE
    image, row, col, exists = _positions(tl.program_id(0), positions, H, W, ROWS)
    channel = tl.arange(0, WIDTH)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for tap in range(SIDE * SIDE):
        # Tap ky of output y reads row y * STRIDE + ky - PADDING.
        ky, kx = (row + PADDING) % STRIDE + tap // SIDE * STRIDE, (col + PADDING) % STRIDE + tap % SIDE * STRIDE
        y, z = (row + PADDING) // STRIDE - tap // SIDE, (col + PADDING) // STRIDE - tap % SIDE
        inside = exists & (ky < K) & (kx < K) & (y >= 0) & (y < OH) & (z >= 0) & (z < OW)
        place = ((image * OH + y) * OW + z)[:, None] * C + first + channel[None, :]
        g = tl.load(grad + place, mask=inside[:, None], other=0.0).to(tl.float32)
        if STRIDE == 1:
            total += g * tl.load(weight + (first - start + channel) * K * K + tap).to(tl.float32)[None, :]
        else:
            which = (first - start + channel)[None, :] * K * K + (ky * K + kx)[:, None]
            total += g * tl.load(weight + which, mask=inside[:, None], other=0.0).to(tl.float32)
    place = ((image * H + row) * W + col)[:, None] * C + first + channel[None, :]
    tl.store(grad_x + place, total.to(grad_x.dtype.element_ty), mask=exists[:, None])


@triton.jit
def _kernel(
    source, w0, w1, w2, target, positions, H, W, OH, OW,
    C: tl.constexpr, END0: tl.constexpr, END1: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    STRIDE: tl.constexpr, SPREADS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The convolution, or with SPREADS the gradient of its map, of the part that the program's channels are of."""
    first = tl.program_id(1) * WIDTH
    if SPREADS:
        if first < END0:
            _spread(source, w0, target, first, 0, positions, H, W, OH, OW, C, K0, STRIDE, ROWS, WIDTH)
        elif first < END1:
            _spread(source, w1, target, first, END0, positions, H, W, OH, OW, C, K1, STRIDE, ROWS, WIDTH)
        else:
            _spread(source, w2, target, first, END1, positions, H, W, OH, OW, C, K2, STRIDE, ROWS, WIDTH)
    else:
        if first < END0:
            _convolve(source, w0, target, first, 0, positions, H, W, OH, OW, C, K0, STRIDE, ROWS, WIDTH)
        elif first < END1:
            _convolve(source, w1, target, first, END0, positions, H, W, OH, OW, C, K1, STRIDE, ROWS, WIDTH)
        else:
            _convolve(source, w2, target, first, END1, positions, H, W, OH, OW, C, K2, STRIDE, ROWS, WIDTH)


@triton.jit
def _weight_kernel(
    x, grad, partial, positions, H, W, OH, OW,
    C: tl.constexpr, END0: tl.constexpr, END1: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    STRIDE: tl.constexpr, LARGEST: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient of one row of taps; a program sums over some of the positions: (programs, C, LARGEST, 8)."""
    ky, first = tl.program_id(1), tl.program_id(2) * WIDTH
    K = tl.where(first < END0, K0, tl.where(first < END1, K1, K2))
    padding = (STRIDE + K - 2) // 2
    if ky < K:
        kx, channel = tl.arange(0, 8), first + tl.arange(0, WIDTH)
        total = tl.zeros((8, ROWS, WIDTH), tl.float32)
        for start in range(tl.program_id(0), tl.cdiv(positions, ROWS), tl.num_programs(0)):
            image, row, col, exists = _positions(start, positions, OH, OW, ROWS)
            place = ((image * OH + row) * OW + col)[:, None] * C + channel[None, :]
            g = tl.load(grad + place, mask=exists[:, None], other=0.0).to(tl.float32)
            y, z = row * STRIDE + ky - padding, col[None, :] * STRIDE + kx[:, None] - padding
            inside = (exists & (y >= 0) & (y < H))[None, :] & (z >= 0) & (z < W) & (kx < K)[:, None]
            place = (((image * H + y) * W)[None, :] + z)[:, :, None] * C + channel[None, None, :]
            total += tl.load(x + place, mask=inside[:, :, None], other=0.0).to(tl.float32) * g[None, :, :]
        target = ((tl.program_id(0) * C + channel)[None, :] * LARGEST + ky) * 8 + kx[:, None]
        tl.store(partial + target, tl.sum(total, 1))


def _plan(weights: list[Tensor], stride: int) -> tuple[list[Tensor], dict]:
    """As many weights as the kernels take, and constants of the compilation."""
    ends: list[int] = []
    sides = [weight.shape[-1] for weight in weights]
    for weight in weights:
        ends.append(len(weight) + (ends[-1] if ends else 0))
    more = MOST_PARTS - len(weights)
    ends, sides = ends + ends[-1:] * more, sides + sides[-1:] * more
    constants = dict(C=ends[-1], END0=ends[0], END1=ends[1], K0=sides[0], K1=sides[1], K2=sides[2])
    return [weight.contiguous() for weight in weights + weights[-1:] * more], constants | dict(STRIDE=stride)


def forward(x: Tensor, weights: list[Tensor], stride: int) -> Tensor:
    """(B, H, W, C) and the weights (C_i, 1, K_i, K_i) of its parts -> (B, OH, OW, C)."""
    x, (B, H, W, C) = x.contiguous(), x.shape
    sizes = H, W, *(depthwise_side(side, weights[0].shape[-1], stride) for side in (H, W))
    output = x.new_empty(B, *sizes[2:], C)
    positions = B * sizes[2] * sizes[3]
    if positions:
        weights, constants = _plan(weights, stride)
        _kernel[(triton.cdiv(positions, ROWS), C // WIDTH)](
            x, *weights, output, positions, *sizes, **constants, SPREADS=False, ROWS=ROWS, WIDTH=WIDTH
        )
    return output


def backward(grad: Tensor, x: Tensor, weights: list[Tensor], stride: int) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the map, in its type, and of the weights, in float32."""
    grad, x, (B, H, W, C) = grad.contiguous(), x.contiguous(), x.shape
    sizes, grad_x = (H, W, *grad.shape[1:3]), torch.empty_like(x)
    if not x.numel():
        return grad_x, [weight.new_zeros(weight.shape, dtype=torch.float32) for weight in weights]
    padded, constants = _plan(weights, stride)
    shape = dict(WIDTH=WIDTH, **constants)
    _kernel[(triton.cdiv(B * H * W, ROWS), C // WIDTH)](
        grad, *padded, grad_x, B * H * W, *sizes, SPREADS=True, ROWS=ROWS, **shape
    )
    positions = B * sizes[2] * sizes[3]
    blocks = LARGEST * C // WIDTH
    programs = min(triton.cdiv(positions, WEIGHT_ROWS), triton.cdiv(PROGRAMS * multiprocessors(x), blocks))
    partial = x.new_empty(programs, C, LARGEST, 8, dtype=torch.float32)
    _weight_kernel[(programs, LARGEST, C // WIDTH)](
        x, grad, partial, positions, *sizes, LARGEST=LARGEST, ROWS=WEIGHT_ROWS, **shape
    )
    gradients, start = [], 0
    for weight in weights:
        K = weight.shape[-1]
        gradients.append(partial[:, start : start + len(weight), None, :K, :K].sum(dim=0))
        start += len(weight)
    return grad_x, gradients
