"""Count the operators that a GPU would be asked for, and the memory that they would read and write.

    python projects/speed/traffic.py --table projects/speed/results/traffic.md

Nothing is computed and no GPU is needed: the model runs on torch's meta device, under an imitation of autocast, with
and without the kernels that this package has for GPUs. Every operator but those that only name memory otherwise counts
as one launch that reads its inputs and writes its results once. Of launches that is a lower bound, as a batch norm
takes several; of traffic it is nearly one from above, as a cache may hold what is read next. Images/s at most are what
--bandwidth would allow if there were nothing but the traffic.
"""

import contextlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from scopevit.models import ScopeViT
from scopevit.models.ops import calls, gpu
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import user_errors
from scopevit.utils.files import require_writable_file, write_whole
from scopevit.utils.tables import markdown

HALF = torch.bfloat16
IN_HALF = (F.linear, F.conv2d, torch.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__)
IN_FLOAT32 = (F.layer_norm, F.cross_entropy, F.softmax)
"""Of the functions that CUDA's autocast casts the inputs of, those that ScopeViT calls."""
NOTHING = ('empty', 'empty_like', 'new_empty', 'empty_strided', '_unsafe_view', 'detach', 'lift_fresh')
"""Operators that neither read nor write."""
KINDS = {
    'attention': ('attention', 'softmax', 'bmm'),
    'linear': ('mm', 'addmm', 'linear', 'mlp_branch'),
    'convolution': ('convolution', 'depthwise'),
    'batch norm': ('batch_norm',),
    'layer norm': ('layer_norm',),
    'casts and copies': ('_to_copy', 'copy', 'clone', 'cat', 'index_select', 'constant_pad'),
    'elementwise and sums': ('',),
}
"""Kinds, and what the name of an operator contains that belongs to one; the first that fits counts."""
MODES = ('training', 'evaluation', 'deploy form')
SWITCHES = {'0': 'none', '1': 'the default', 'all': 'all'}
"""Of ``SCOPEVIT_TRITON``, and what they are called here."""


class Traffic(TorchDispatchMode):
    """Counts launches and bytes by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> object:
        results = operator(*args, **(kwargs or {}))
        name = operator.name().split('::')[1].split('.')[0]
        if not operator.is_view and name not in NOTHING:
            moved = [x for x in tree_leaves((args, kwargs, results)) if isinstance(x, Tensor)]
            kind = next(kind for kind, parts in KINDS.items() if any(part in name for part in parts))
            if name == 'bmm' and any(not x.stride(0) for x in args):  # one matrix for the whole batch
                kind = 'linear'
            self.launches[kind] += 1
            self.bytes[kind] += sum(x.numel() * x.element_size() for x in moved)
        return results


class Autocast(TorchFunctionMode):
    """CUDA's autocast for tensors of any device: a weight is cast once, as long as this lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.cast: dict[int, tuple[Tensor, Tensor]] = {}

    def half(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        if not isinstance(x, nn.Parameter):
            return x.to(HALF)
        if id(x) not in self.cast:
            self.cast[id(x)] = x, x.to(HALF)
        return self.cast[id(x)][1]

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return attention(*map(self.half, args), **kwargs)
        if function in IN_HALF:
            args, kwargs = tree_map_only(Tensor, self.half, (args, kwargs))
        elif function in IN_FLOAT32:
            args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        return function(*args, **kwargs)


def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """By the kernels that a GPU would take: which one is asked of the device, and here is none."""
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    mask = attn_mask.to(q.dtype).expand(len(q), *attn_mask.shape[1:])
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, torch.is_grad_enabled())[0]


@contextlib.contextmanager
def as_on_gpu(switch: str) -> Iterator[None]:
    """Let the package take tensors for those of a GPU whose kernels are switched as ``SCOPEVIT_TRITON`` does."""
    before = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', HALF)
    try:
        with (
            mock.patch.object(gpu, 'SWITCH', switch),
            mock.patch.object(gpu, 'serves', lambda x: switch != '0' and x.dtype in gpu.DTYPES),
            mock.patch.object(calls, 'is_watched', return_value=False),
            Autocast(),
        ):
            yield
    finally:
        torch.set_autocast_enabled('cuda', before[0])
        torch.set_autocast_dtype('cuda', before[1])


def count(arch: str, mode: str, switch: str, batch: int, size: tuple[int, int]) -> Traffic:
    """What a step takes.

    Args:
        mode: 'training', forward and backward pass without the optimizer; 'evaluation'; or 'deploy form'.
        switch: Of ``SCOPEVIT_TRITON``: '0', '1' or 'all'.
    """
    with torch.device('meta'):
        backbone = ScopeViT(arch, drop_path_rate=0.1, deploy=mode == 'deploy form')
        model = nn.Sequential(backbone, Head(backbone.feature_channels[-1]))
        images = torch.empty(batch, 3, *size).to(memory_format=torch.channels_last)
    model.train(mode == 'training')
    with as_on_gpu(switch), Traffic() as traffic, torch.set_grad_enabled(mode == 'training'):
        loss = model(images).float().logsumexp(1).mean()
        if mode == 'training':
            loss.backward()
    return traffic


class Head(nn.Module):
    """Global pooling and a linear classifier of 1,000 classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 1000)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.fc(maps[-1].mean(dim=(2, 3)))


def tables(counted: dict[tuple[str, str], Traffic], batch: int, bandwidth: float) -> str:
    """Sums of every step, and what training consists of."""

    def megabytes(traffic: Traffic, *kinds: str) -> float:
        return sum(traffic.bytes[kind] for kind in kinds or KINDS) / batch / 1e6

    sums: list[tuple[str, ...]] = [('Step', 'Kernels', 'Launches', 'MB an image', 'Images/s at most')]
    for (mode, switch), traffic in counted.items():
        most = f'{bandwidth * 1e6 / megabytes(traffic):,.0f}'
        launches = f'{sum(traffic.launches.values()):,}'
        sums.append((mode, SWITCHES[switch], launches, f'{megabytes(traffic):,.0f}', most))
    training = [counted['training', switch] for switch in SWITCHES]
    kinds: list[tuple[str, ...]] = [('Training', *(f'{name}: launches, MB' for name in SWITCHES.values()))]
    for kind in KINDS:
        kinds.append((kind, *(f'{traffic.launches[kind]:,}, {megabytes(traffic, kind):.1f}' for traffic in training)))
    return f'{markdown(sums, text_columns=2)}\n\n{markdown(kinds)}'


def main() -> None:
    parser = tool_parser(__doc__)
    variants = ScopeViT.arch_settings
    parser.add_argument('--arch', default='tiny', choices=variants, help='variant (default: %(default)s)')
    add_arguments(parser, '--batch-size', default=128)
    add_arguments(parser, '--size', default=(256, 256))
    parser.add_argument(
        '--bandwidth', type=float, default=3.02, metavar='TB/S', help='of the memory (default: %(default)s, an H100)'
    )
    add_arguments(parser, '--table')
    args = parser.parse_args()
    with user_errors():
        if args.table:
            require_writable_file(args.table, '--table')
        steps = [(mode, switch) for mode in MODES for switch in SWITCHES]
        counted = {(mode, switch): count(args.arch, mode, switch, args.batch_size, args.size) for mode, switch in steps}
        size = 'x'.join(map(str, args.size))
        what = (
            f'ScopeViT-{args.arch} with a linear head, batch {args.batch_size} of {size}, bfloat16 autocast, '
            f'torch {torch.__version__}; {args.bandwidth:g} TB/s.'
        )
        text = f'{what}\n\n{tables(counted, args.batch_size, args.bandwidth)}\n'
        print(text)
        if args.table:
            command = shlex.join(['python', *sys.argv])
            write_whole(args.table, f'# Launches and memory traffic, counted\n\n    {command}\n\n{text}')


if __name__ == '__main__':
    main()
