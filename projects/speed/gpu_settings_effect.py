"""What the settings of a config's ``gpu`` are worth on this GPU, in training steps of ScopeViT-tiny.

    python projects/speed/gpu_settings_effect.py settings             # each off and on, in turns
    python projects/speed/gpu_settings_effect.py plans --compile      # first steps at new sizes, as detection has them

'settings': forward and backward pass and AdamW on images of one size, in bfloat16, for TF32 in float32. A sample is the
mean of some steps, after one that is not measured; ratios are taken round by round. The time that the GPU is busy and
the memory, by torch's profiler, tell what a host that is slow to launch hides.

'plans': two images in float16, as mmdet's --amp has them, at six sizes not seen before, each twice: what the first step
takes beyond the second is spent on planning. First with what a detector's config is set to, then with cuDNN's
attention, then, with --compile, as first, but one program for all sizes. Each way has sizes of its own.
"""

import argparse
import operator
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from scopevit.analysis.profiling import profile
from scopevit.engine.gpu_settings import settle_gpu
from scopevit.models import ScopeViT
from scopevit.utils.arguments import add_arguments, positive, require_device, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import user_errors

ROOT, CALLS = Path(__file__).resolve().parents[2], 5
DETECTOR = str(ROOT / 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py')
LARGEST, WIDTHS = ((800, 1344), (1344, 800)), (992, 1056, 1120, 1184, 1248, 1312)  # of padded images
FUSED = 'fused_optimizer'


def set_tf32(is_on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_on


SETTINGS: dict[str, Callable[[bool], None]] = {
    'tf32': set_tf32,
    'cudnn_benchmark': partial(setattr, torch.backends.cudnn, 'benchmark'),
    FUSED: lambda is_on: None,  # the step chooses an optimizer
    'cudnn_attention': torch.backends.cuda.enable_cudnn_sdp,
}
"""How each is switched. All are off after they were measured; the last is on by itself."""


class Training:
    """Steps of a backbone, whose weights stay as they are, under autocast to ``dtype`` unless that is float32."""

    def __init__(self, device: str, dtype: torch.dtype, compiled: bool = False) -> None:
        self.device, self.dtype = torch.device(device), dtype
        model = ScopeViT('tiny', out_indices=(0, 1, 2, 3), drop_path_rate=0.1).train()
        self.model = model.to(device, memory_format=torch.channels_last)
        if compiled:
            self.model.compile(dynamic=True)
        self.optimizers = [torch.optim.AdamW(model.parameters(), lr=0.0, fused=fused) for fused in (False, True)]

    def images(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).contiguous(memory_format=torch.channels_last)

    def step(self, images: Tensor, is_fused: bool = True) -> None:
        self.model.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            maps = self.model(images)
        torch.stack([x.float().square().mean() for x in maps]).sum().backward()
        self.optimizers[is_fused].step()

    def milliseconds(self, step: Callable[[], None], calls: int = 1) -> float:
        """Mean time of a step, from an idle device until it is idle again."""
        wait = torch.cuda.synchronize if self.device.type == 'cuda' else lambda: None
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            step()
        wait()
        return 1e3 * (time.perf_counter() - start) / calls


def effects(args: argparse.Namespace) -> Iterator[list[str]]:
    """The rows of a table, one for each setting."""
    yield ['gpu.', 'Off, images/s', 'On', 'On / off (range)', 'GPU busy, ms: off', 'On', 'Extra GiB: off', 'On']
    yield ['---', *['---:'] * 7]
    yield from (effect(name, args) for name in SETTINGS)


def effect(name: str, args: argparse.Namespace) -> list[str]:
    """A setting off and on, in turns."""
    training = Training(args.device, torch.float32 if name == 'tf32' else torch.bfloat16)
    images, times, profiles = training.images(args.batch_size, 3, *args.size), ([], []), []
    for number in range(args.rounds + 1):
        for is_on in (False, True):
            SETTINGS[name](is_on)
            step = partial(training.step, images, is_on or name != FUSED)
            step()
            if number:
                times[is_on].append(training.milliseconds(step, CALLS))
            else:
                profiles.append(profile(step, training.device))
    SETTINGS[name](False)
    ratios = [off / on for off, on in zip(*times)]
    speeds = [f'{1e3 * args.batch_size / statistics.median(each):,.0f}' for each in times]
    more = [f'{1e3 * found.gpu_seconds:.1f}' for found in profiles]
    more += [f'{found.memory / 2**30:.2f}' for found in profiles]
    return [name, *speeds, f'{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})', *more]


def plans(args: argparse.Namespace) -> Iterator[list[str]]:
    """The rows of a table, one for each way."""
    yield ['Attention', 'Very first, ms', 'First, ms', 'At most', 'Second', 'First - second', 'Extra GiB at most']
    yield ['---', *['---:'] * 6]
    chosen = torch.backends.cuda.cudnn_sdp_enabled()
    ways = [('as set for a detector', chosen, False), ("with cuDNN's attention", True, False)]
    ways += [('as set, compiled for all sizes', chosen, True)] * args.compile
    for number, (name, uses_cudnn, compiled) in enumerate(ways):
        torch.backends.cuda.enable_cudnn_sdp(uses_cudnn)
        dtype = torch.float16 if args.device.startswith('cuda') else torch.bfloat16
        training = Training(args.device, dtype, compiled)
        steps, times = [], []  # from the largest on, after which memory and kernels are there
        for size in (*LARGEST, *((800 - 32 * number, width) for width in WIDTHS)):
            steps.append(partial(training.step, training.images(2, 3, *(side // args.scale for side in size))))
            times.append((training.milliseconds(steps[-1]), training.milliseconds(steps[-1])))
        first, second = zip(*times[len(LARGEST) :])
        planning = statistics.median(map(operator.sub, first, second))
        shown = (times[0][0], statistics.median(first), max(first), statistics.median(second), planning)
        memory = profile(steps[0], training.device).memory
        yield [name, *(f'{milliseconds:.1f}' for milliseconds in shown), f'{memory / 2**30:.2f}']


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('what', choices=('settings', 'plans'), metavar='WHAT', help='settings or plans, see above')
    add_arguments(parser, '--batch-size', default=256, help="of 'settings': images in a batch (default: %(default)s)")
    add_arguments(parser, '--size', default=(256, 256), help="of 'settings': one number for a square (default: 256)")
    add_arguments(parser, '--rounds', default=5, help="of 'settings' (default: %(default)s)")
    add_arguments(parser, '--compile', help="of 'plans': also one program for all sizes, which takes minutes")
    parser.add_argument('--scale', type=positive, default=1, metavar='N', help='divides the sizes (default: 1)')
    add_arguments(parser, '--device', default='cuda', help='for example cuda:1 (default: %(default)s)')
    args = parser.parse_args()
    require_device(args.device)
    if args.what == 'plans':
        settle_gpu(load_config(DETECTOR))  # with lines of log
    where = torch.cuda.get_device_name(args.device) if args.device.startswith('cuda') else 'CPU'
    print(f'\nScopeViT-tiny, training steps; {where}, torch {torch.__version__}\n')
    for row in plans(args) if args.what == 'plans' else effects(args):
        print('| ' + ' | '.join(row) + ' |', flush=True)  # at once: the next one may take minutes


if __name__ == '__main__':
    main()
