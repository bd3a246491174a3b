"""Time the Triton kernels of scopevit on a GPU with other numbers of warps, programs and elements in a tile.

    python projects/speed/gpu_kernels.py                # a minute; tables for the stages of ScopeViT-tiny

Microseconds, forward and backward, bfloat16, each the median of five replays of a CUDA graph, so that the
host's time is not in them; the floor is what reading the inputs and writing the results takes at the GPU's copying
speed. PyTorch's forward pass stands beside them.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from scopevit.analysis.reporting import markdown
from scopevit.models.layers import GlobalScaleDilatedAttention
from scopevit.models.ops import gpu
from scopevit.utils.arguments import positive
from scopevit.utils.errors import UserError, user_errors

STAGES = ((2, 64), (4, 32), (8, 16), (16, 8))
"""Heads, of 16 channels, and side of the map at 256 pixels."""
REPLAYS, CALLS = 5, 10


def microseconds(run: Callable[[], object]) -> float:
    """Median time of a call, without that of the host."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # compiles, and fills caches
        run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            run()
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / CALLS)
    return statistics.median(times)


def copy_speed() -> float:
    """Bytes read and written in a microsecond."""
    source = torch.randn(2**28, device='cuda')
    target = torch.empty_like(source)
    return 2 * source.nbytes / microseconds(lambda: target.copy_(source))


def attention(x: Tensor, heads: int, speed: float) -> Iterator[tuple[str, float, float]]:
    """Name, forward and backward time of GSDA's attention, and what they are compared with."""
    from scopevit.models.ops.triton_kernels import dilated_attention as kernels

    qkv, table = x.repeat(1, 1, 1, 3), torch.randn(225, heads, device='cuda')
    yield 'floor', 4 * x.nbytes / speed, 7 * x.nbytes / speed
    for warps, programs in itertools.product((2, 4, 8), (4, 8)):
        kernels.FORWARD = kernels.BACKWARD = warps, programs
        forward = microseconds(lambda: kernels.forward(qkv, table, heads, 8))
        yield (
            f'{warps} warps, {programs} programs',
            forward,
            microseconds(lambda: kernels.backward(x, qkv, table, heads, 8)),
        )
    layer = GlobalScaleDilatedAttention(x.shape[-1], heads, 8, 0.0).cuda().bfloat16().eval()
    layer.qkv = torch.nn.Identity()
    layer.qkv.forward = lambda tokens: torch.cat([tokens] * 3, dim=-1)
    with torch.inference_mode():
        yield "PyTorch's, with a copy of the tokens", microseconds(lambda: layer._attend(x)), float('nan')


def rows(x: Tensor, speed: float) -> Iterator[tuple[str, float, float]]:
    """The same of the layer norm of float32 rows, the results in bfloat16."""
    from scopevit.models.ops.triton_kernels import narrow as kernels

    wide, (weight, bias) = x.float(), torch.randn(2, x.shape[-1], device='cuda')
    yield 'floor', 3 * x.nbytes / speed, 5 * x.nbytes / speed
    for kernels.TILE, kernels.WARPS in itertools.product((1024, 2048, 4096), (2, 4, 8)):
        forward = microseconds(lambda: kernels.layer_norm(wide, weight, bias, 1e-5, x.dtype))
        backward = microseconds(lambda: kernels.layer_norm_backward(x, wide, weight, 1e-5))
        yield f'{kernels.TILE} elements, {kernels.WARPS} warps', forward, backward
    yield "PyTorch's, in float32", microseconds(lambda: F.layer_norm(wide, weight.shape, weight, bias)), float('nan')


def mlp(x: Tensor, speed: float) -> Iterator[tuple[str, float, float]]:
    """The same of an MLP's branch."""
    from scopevit.models.ops.triton_kernels import mlp as kernels

    C, bare = x.shape[-1], x.new_empty(0)
    K = 4 * C
    norm, (w1, w2) = torch.randn(2, C, device='cuda'), torch.randn(2, K * C, device='cuda') / K**0.5
    w1, w2, b1, b2 = w1.view(K, C), w2.view(C, K), torch.randn(K, device='cuda'), torch.randn(C, device='cuda')
    halves = kernels.convert(w1, w2, b2, x.dtype)
    weights = (*norm, halves[0].view(K, C), b1, halves[1].view(C, K), b2)
    yield 'floor', 2 * x.nbytes / speed, (4 * x.nbytes + 10 * 4 * x.nbytes) / speed
    for rows, step, warps, stages in itertools.product((64, 128), (32, 64), (4, 8), (2,)):
        kernels.FORWARD = {C: (rows, step, warps, stages)}
        name = f'{rows} rows, {step} hidden channels, {warps} warps, {stages} stages'
        try:
            yield name, microseconds(lambda: kernels.forward(x, *weights, bare, bare, 1e-5)), float('nan')
        except triton.OutOfResources:
            yield name, float('nan'), float('nan')
    backward = microseconds(lambda: kernels.backward(x, x, *norm, b1, w2, b2, b2, bare, halves, 1e-5))
    yield 'backward', float('nan'), backward
    norm, b1, b2 = (weight.to(x.dtype) for weight in (norm, b1, b2))
    yield (
        "PyTorch's",
        microseconds(
            lambda: x + F.linear(F.gelu(F.linear(F.layer_norm(x, (C,), *norm), weights[2], b1)), weights[4], b2)
        ),
        float('nan'),
    )


def table(title: str, measured: Iterator[tuple[str, float, float]]) -> str:
    lines = [(name, f'{forward:.1f}', f'{backward:.1f}') for name, forward, backward in measured]
    return markdown([(title, 'forward, µs', 'backward, µs'), *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=positive, default=128, help='images (default: %(default)s)')
    args = parser.parse_args()
    with user_errors():
        if not (torch.cuda.is_available() and gpu.serves(torch.zeros(1, device='cuda'))):
            raise UserError('there is no GPU here that runs the kernels: NVIDIA, compute capability 8.0 or newer')
        print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {args.batch}')
        speed = copy_speed()
        for heads, side in STAGES:
            x = torch.randn(args.batch, side, side, 16 * heads, device='cuda', dtype=torch.bfloat16)
            where = f'{side}x{side} tokens of {16 * heads} channels'
            print('\n' + table(f'Attention, {where}', attention(x, heads, speed)))
            print('\n' + table(f'Layer norm, {where}', rows(x, speed)))
            print('\n' + table(f"MLP's branch, {where}", mlp(x, speed)))


if __name__ == '__main__':
    main()
