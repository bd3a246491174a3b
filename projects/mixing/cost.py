"""Measure what each method costs: the mixing of a batch by itself, and a whole step of ScopeViT-xtiny with it.

    python projects/mixing/cost.py --batch-size 128

Methods take turns on one thread; times are medians, over all rounds after the first, of the processor's time, which
other work on the machine hardly changes. Steps are forward and backward passes on grey images of 32x32.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's methods

from projects.mixing.compare import random_batch  # noqa: E402
from projects.mixing.methods.stages import show_backbone  # noqa: E402
from projects.mixing.settings import METHODS, config_of  # noqa: E402
from projects.trainings import machines_of  # noqa: E402
from scopevit.analysis.machine import describe_machine  # noqa: E402
from scopevit.apis.model import build_model  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import user_errors  # noqa: E402

LARGE = (64, 3, 224, 224)


def mixings(batch: int) -> dict[tuple[str, str], Callable[[], object]]:
    """By method and kind what is to be timed: 'small' and 'large' batches to mix, and a training 'step'."""
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for method in METHODS:
        model = build_model(config_of('scopevit-xtiny', method)).train()
        show_backbone(model)

        def step(model: torch.nn.Module = model) -> None:
            inputs = model.data_preprocessor(random_batch(batch), True)
            sum(model(**inputs, mode='loss').values()).backward()

        calls[method, 'step'] = step
        if method in ('none', 'manifoldmix', 'automix'):  # they mix within the step
            continue
        (augment,) = model.data_preprocessor.batch_augments.augments
        sizes = dict(small=(batch, 1, 32, 32), large=LARGE)
        for kind, size in sizes.items():
            if (method, kind) != ('attentivemix', 'large'):  # its network takes grey images
                images, labels = torch.randn(size), torch.eye(10)[torch.arange(size[0]) % 10]
                calls[method, kind] = lambda augment=augment, images=images, labels=labels: augment(images, labels)
    return calls


def measure(batch: int, rounds: int) -> dict[tuple[str, str], float]:
    """Milliseconds of one thread for each, the median of ``rounds``."""
    torch.set_num_threads(1)
    calls = mixings(batch)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds + 1):
        for key, call in calls.items():
            begin = time.process_time()
            call()
            times[key].append(1000 * (time.process_time() - begin))
    return {key: statistics.median(own[1:]) for key, own in times.items()}


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--batch-size', default=128)
    add_arguments(parser, '--rounds', default=5)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        found = measure(args.batch_size, args.rounds)
        machine = describe_machine('cpu')
        small, large = f'{args.batch_size}x1x32x32', 'x'.join(map(str, LARGE))
        print(f'| Method | mixing {small} (ms) | mixing {large} (ms) | step of ScopeViT-xtiny (ms) |')
        print('| --- | ---: | ---: | ---: |')
        for method in METHODS:
            cells = [f'{found[method, kind]:.1f}' if (method, kind) in found else '' for kind in ('small', 'large')]
            print(f'| {method} | {" | ".join(cells)} | {found[method, "step"]:.0f} |')
        print(f'\n{machines_of([dict(machine=machine)])}')


if __name__ == '__main__':
    main()
