"""Measure what exact resume costs an iteration, beside MMEngine's own Runner on the same config.

    python projects/scenes/make_scenes.py --only imagenet
    python projects/reliability/cost.py

Both runners take turns in blocks of iterations, in random order, data loading included: each item's random state is set
there. What is compared is CPU time, which other programs disturb little.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.runner import Runner

from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.engine.console import silence_useless_warnings
from scopevit.engine.launch import build_runner, keep_freed_memory
from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import user_errors

CONFIG = Path(__file__).resolve().parents[1] / 'scenes' / 'configs' / 'scopevit-xtiny_2xb32-17e_scenes-32px.py'
WARM_UP = 2


def start(kind: str, folder: str) -> Runner:
    """A runner as it is when its training begins."""
    cfg = load_config(str(CONFIG))
    cfg.merge_from_dict(
        dict(work_dir=f'{folder}/{kind}', log_level='ERROR', experiment_name=kind, randomness=dict(seed=0))
    )
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    if kind == 'MMEngine':
        cfg.runner_type = 'mmengine.Runner'
    runner = build_runner(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    for moment in ('before_run', 'before_train', 'before_train_epoch'):
        runner.call_hook(moment)
    runner.model.train()
    return runner


def iterations(runner: Runner) -> Iterator[None]:
    """Train one iteration after the other, without end."""
    while True:
        for number, batch in enumerate(runner.train_dataloader):
            runner.train_loop.run_iter(number, batch)
            yield


def measure(rounds: int, block: int) -> list[float]:
    """By round, the CPU time of a block of this package's runner, divided by that of MMEngine's."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        running = {kind: iterations(start(kind, folder)) for kind in ('MMEngine', 'scopevit')}
        for done in range(WARM_UP + rounds):
            spent = {}
            for kind in random.Random(done).sample(list(running), 2):
                begin = time.process_time()
                for _ in range(block):
                    next(running[kind])
                spent[kind] = time.process_time() - begin
            if done >= WARM_UP:
                ratios.append(spent['scopevit'] / spent['MMEngine'])
    return ratios


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--rounds', default=60)
    parser.add_argument(
        '--block', type=positive, default=10, metavar='N', help='iterations in a turn (default: %(default)s)'
    )
    args = parser.parse_args()
    silence_useless_warnings()
    keep_freed_memory()
    with user_errors():
        machine = machine_in_words(describe_machine('cpu'))
        low, middle, high = statistics.quantiles(measure(args.rounds, args.block), n=4)
        print(f'{machine}\nAn iteration takes {middle - 1:+.2%} (quartiles {low - 1:+.2%} and {high - 1:+.2%})')


if __name__ == '__main__':
    main()
