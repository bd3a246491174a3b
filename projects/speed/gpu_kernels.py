"""Time the Triton kernels of scopevit on a GPU beside PyTorch's.

    python projects/speed/gpu_kernels.py            # tables for the stages of ScopeViT-tiny
    python projects/speed/gpu_kernels.py --tune     # minutes; with other numbers of warps, programs and elements, too

Microseconds, forward and backward, bfloat16, each the median of five replays of a CUDA graph, so that the
host's time is not in them; the floor is what reading the inputs and writing the results takes at the GPU's copying
speed. PyTorch's stand beside them: for an MLP's branch and depthwise convolutions with the copies that they need.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scopevit.models.layers.gsda import attend_in_groups, group
from scopevit.models.ops import gpu
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.tables import markdown

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


def attention(x: Tensor, heads: int, speed: float, tune: bool) -> Iterator[tuple[str, float, float]]:
    """Name, forward and backward time of GSDA's attention, and what they are compared with."""
    from scopevit.models.ops.triton_kernels import dilated_attention as kernels

    qkv, table = x.repeat(1, 1, 1, 3), torch.randn(225, heads, device='cuda')
    yield 'floor', 4 * x.nbytes / speed, 7 * x.nbytes / speed
    for setting in [None, *itertools.product((2, 4, 8), (4, 8))][: None if tune else 1]:
        if setting is not None:
            kernels.FORWARD = kernels.BACKWARD = setting
        forward = microseconds(lambda: kernels.forward(qkv, table, heads, 8))
        backward = microseconds(lambda: kernels.backward(x, qkv, table, heads, 8))
        yield 'as it serves' if setting is None else '{} warps, {} programs'.format(*setting), forward, backward
    side = x.shape[1]

    def plain(qkv: Tensor) -> Tensor:
        return attend_in_groups(group(qkv, 8), table, heads, 8, side, side)

    forward = microseconds(lambda: plain(qkv))
    yield "PyTorch's, with the tokens' permutations", forward, gradient_microseconds(plain, qkv, table)


def rows(x: Tensor, speed: float, tune: bool) -> Iterator[tuple[str, float, float]]:
    """The same of the layer norm of float32 rows, the results in bfloat16."""
    from scopevit.models.ops.triton_kernels import narrow as kernels

    wide, (weight, bias) = x.float(), torch.randn(2, x.shape[-1], device='cuda')
    yield 'floor', 3 * x.nbytes / speed, 5 * x.nbytes / speed
    for setting in [None, *itertools.product((1024, 2048, 4096), (2, 4, 8))][: None if tune else 1]:
        if setting is not None:
            kernels.TILE, kernels.WARPS = setting
        forward = microseconds(lambda: kernels.layer_norm(wide, weight, bias, 1e-5, x.dtype))
        backward = microseconds(lambda: kernels.layer_norm_backward(x, wide, weight, 1e-5))
        yield 'as it serves' if setting is None else '{} elements, {} warps'.format(*setting), forward, backward

    def plain(x: Tensor) -> Tensor:
        return F.layer_norm(x, weight.shape, weight, bias)

    yield "PyTorch's, in float32", microseconds(lambda: plain(wide)), gradient_microseconds(plain, wide, weight, bias)


def mlp(x: Tensor, speed: float, tune: bool) -> Iterator[tuple[str, float, float]]:
    """The same of an MLP's branch. The backward pass computes the hidden channels again."""
    from scopevit.models.ops.triton_kernels import mlp as kernels

    C, none = x.shape[-1], x.new_empty(0)
    K = 4 * C
    norm, b2, gamma = torch.randn(2, C, device='cuda'), *torch.randn(2, C, device='cuda')
    w1, w2, b1 = torch.randn(K, C, device='cuda'), torch.randn(C, K, device='cuda') / 2, torch.randn(K, device='cuda')
    halves = kernels.convert(w1, w2, gamma, x.dtype)
    first, second = halves[0].view(K, C), halves[1].view(C, K)
    yield 'floor', 2 * x.nbytes / speed, 4 * x.nbytes / speed
    backward = microseconds(lambda: kernels.backward(x, x, *norm, b1, w2, b2, gamma, none, halves, 1e-5))
    for setting in [None, *itertools.product((64, 128), (32, 64), (4, 8), (2, 3))][: None if tune else 1]:
        if setting is not None:
            kernels.ROWS, kernels.STEP, kernels.WARPS, kernels.STAGES = setting
        forward = microseconds(lambda: kernels.forward(x, *norm, first, b1, second, b2, none, none, 1e-5))
        name = '{} rows, {} hidden channels, {} warps, {} stages'
        yield 'as it serves' if setting is None else name.format(*setting), forward, backward
    norm, b1, b2 = (weight.to(x.dtype) for weight in (norm, b1, b2))

    def plain(x: Tensor) -> Tensor:
        return x + F.linear(F.gelu(F.linear(F.layer_norm(x, (C,), *norm), first, b1)), second, b2)

    yield "PyTorch's", microseconds(lambda: plain(x)), gradient_microseconds(plain, x, first, second)


def depthwise(x: Tensor, heads: int, speed: float) -> Iterator[tuple[str, float, float]]:
    """The same of the convolutions that embed the keys and values of MSSA, and of 3x3 ones."""
    from scopevit.models.backbones.arch import default_scope_heads

    sides = zip(default_scope_heads(heads), (7, 5, 3))
    scopes = [torch.randn(16 * n, 1, k, k, device='cuda', dtype=x.dtype) for n, k in sides if n]
    yield from convolutions('scopes', x, scopes, stride={64: 4, 32: 2}.get(x.shape[1], 1), speed=speed)
    plain = [torch.randn(x.shape[-1], 1, 3, 3, device='cuda', dtype=x.dtype)]
    yield from convolutions('3x3', x, plain, stride=1, speed=speed)


def convolutions(
    name: str, x: Tensor, weights: list[Tensor], stride: int, speed: float
) -> Iterator[tuple[str, float, float]]:
    from scopevit.models.ops.triton_kernels import depthwise as kernels

    def plain(x: Tensor) -> Tensor:
        maps = x.permute(0, 3, 1, 2).split([len(w) for w in weights], dim=1)
        paddings = [(stride - 1 + w.shape[-1] - 1) // 2 for w in weights]
        convolved = [F.conv2d(m, w, None, stride, p, groups=len(w)) for m, w, p in zip(maps, weights, paddings)]
        return torch.cat(convolved, dim=1).permute(0, 2, 3, 1)

    output = kernels.forward(x, weights, stride)
    moved = (x.nbytes + output.nbytes) / speed
    yield f'{name}: floor', moved, 2 * moved
    backward = microseconds(lambda: kernels.backward(output, x, weights, stride))
    yield f'{name}: as it serves', microseconds(lambda: kernels.forward(x, weights, stride)), backward
    yield f"{name}: PyTorch's", microseconds(lambda: plain(x)), gradient_microseconds(plain, x, *weights)


def gradient_microseconds(run: Callable[[Tensor], Tensor], *inputs: Tensor) -> float:
    """Time of the backward pass: that of both less that of the forward pass."""
    for value in inputs:
        value.requires_grad_()
    with torch.no_grad():
        grad = torch.randn_like(run(inputs[0]))
    both = microseconds(lambda: torch.autograd.grad(run(inputs[0]), inputs, grad))
    forward = microseconds(lambda: run(inputs[0]))
    for value in inputs:
        value.requires_grad_(False)
    return both - forward


def table(title: str, measured: Iterator[tuple[str, float, float]]) -> str:
    lines = [(name, f'{forward:.1f}', f'{backward:.1f}') for name, forward, backward in measured]
    return markdown([(title, 'forward, µs', 'backward, µs'), *lines])


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--batch-size', default=128)
    parser.add_argument('--tune', action='store_true', help='also with other numbers of warps and the like')
    args = parser.parse_args()
    with user_errors():
        if not (torch.cuda.is_available() and gpu.serves(torch.zeros(1, device='cuda'))):
            raise UserError('there is no GPU here that runs the kernels: NVIDIA, compute capability 8.0 or newer')
        print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {args.batch_size}')
        speed = copy_speed()
        for heads, side in STAGES:
            x = torch.randn(args.batch_size, side, side, 16 * heads, device='cuda', dtype=torch.bfloat16)
            where = f'{side}x{side} tokens of {16 * heads} channels'
            print('\n' + table(f'Attention, {where}', attention(x, heads, speed, args.tune)))
            print('\n' + table(f'Layer norm, {where}', rows(x, speed, args.tune)))
            print('\n' + table(f"MLP's branch, {where}", mlp(x, speed, args.tune)))
            print('\n' + table(f'Depthwise, {where}', depthwise(x, heads, speed)))


if __name__ == '__main__':
    main()
