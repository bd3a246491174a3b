"""Time what exact resume and stopping add to an iteration, each part alone, beside the iteration itself.

    python projects/scenes/make_scenes.py --only imagenet
    python projects/reliability/cost.py

Compared as wholes, trainings with and without these parts differ by several percent from run to run, more than the
parts take. So each is called many times by itself:

  places      indices that know their places in the run, instead of plain ones, for a batch
  sending     these to a process that loads data, and their arrival there
  seeding     a random state for each of a batch's items, and that of the process kept
  asking      whether the process was sent a signal, at an iteration's end
  agreeing    the same of two processes, which ask one another over gloo

The iteration is one of the scenes' classifier, 32 images loaded in the process itself, on one thread. What is measured
is CPU time, which other programs disturb little; of agreeing, which is waiting, the time that passes.
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch
from mmengine.runner import Runner
from torch import distributed, multiprocessing
from torch.utils.data import BatchSampler, SequentialSampler

from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.engine.console import silence_useless_warnings
from scopevit.engine.launch import build_runner, keep_freed_memory
from scopevit.engine.placed_sampler import Items, PlacedBatchSampler, PlacedItems
from scopevit.engine.preemption import StopHook
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import user_errors

CONFIG = Path(__file__).resolve().parents[1] / 'scenes' / 'configs' / 'scopevit-xtiny_2xb32-17e_scenes-32px.py'
BATCH = 32
WARM_UP = 3
CALLS = 200
"""Of a part, in each round."""


def start(folder: str) -> Runner:
    """A runner as it is when its training begins."""
    cfg = load_config(str(CONFIG))
    cfg.merge_from_dict(dict(work_dir=folder, log_level='ERROR', randomness=dict(seed=0)))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=BATCH)
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


def seconds(call: Callable[[], object], calls: int, clock: Callable[[], float] = time.process_time) -> float:
    """What a call takes, of several."""
    begin = clock()
    for _ in range(calls):
        call()
    return (clock() - begin) / calls


class Nothing:
    """Data that take no time."""

    def __len__(self) -> int:
        return BATCH

    def __getitem__(self, index: int) -> int:
        return index


def parts_of_a_batch() -> dict[str, Callable[[], float]]:
    """What a batch's places and random states take beyond plain indices, by part; each is measured when called."""
    plain = BatchSampler(SequentialSampler(Nothing()), BATCH, False)
    placed = PlacedBatchSampler(SequentialSampler(Nothing()), BATCH)
    indices, places = next(iter(plain)), next(iter(placed))
    read, read_seeded = Items(Nothing()), PlacedItems(Nothing(), seed=0, rank=0)

    def more(call: Callable[[], object], usual: Callable[[], object]) -> float:
        return seconds(call, CALLS) - seconds(usual, CALLS)

    return {
        'places': lambda: more(lambda: list(placed), lambda: list(plain)),
        'sending': lambda: more(
            lambda: ForkingPickler.loads(ForkingPickler.dumps(places)),
            lambda: ForkingPickler.loads(ForkingPickler.dumps(indices)),
        ),
        'seeding': lambda: more(lambda: read_seeded(places), lambda: read(indices)),
    }


def agree(rank: int, port: int, rounds: int, out: str) -> None:
    """What one of two processes takes to learn whether the other was sent a signal; the first writes it down."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', world_size=2, rank=rank)
    hook = StopHook()
    hook.group = distributed.new_group(backend='gloo')
    found = [seconds(lambda: hook._is_told(None), CALLS, time.perf_counter) for _ in range(1 + rounds)][1:]
    if rank == 0:
        torch.save(found, out)
    distributed.barrier()
    distributed.destroy_process_group()


def agreeing(rounds: int, folder: str) -> list[float]:
    """Seconds that two processes take to ask one another, by round."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    out = os.path.join(folder, 'agreeing.pt')
    multiprocessing.spawn(agree, (port, rounds, out), nprocs=2)
    return torch.load(out)


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds by part and round, those of the ``iteration`` among them."""
    with tempfile.TemporaryDirectory() as folder:
        runner = start(folder)
        running = iterations(runner)
        stop = next(hook for hook in runner.hooks if isinstance(hook, StopHook))
        seconds(lambda: next(running), WARM_UP)
        parts = {
            'iteration': lambda: seconds(lambda: next(running), 1),
            **parts_of_a_batch(),
            'asking': lambda: seconds(lambda: stop.after_train_iter(runner, 0), CALLS),
        }
        # In turns, so that other programs disturb all alike.
        found = [{name: part() for name, part in parts.items()} for _ in range(rounds)]
        agreed = agreeing(rounds, folder)
    return {**{name: [times[name] for times in found] for name in parts}, 'agreeing': agreed}


def report(found: dict[str, list[float]]) -> str:
    """Median and quartiles by part, and its share of an iteration."""
    iteration = statistics.median(found['iteration'])
    lines = []
    for name, times in found.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(times, n=4))
        share = f'  {middle / 1e3 / iteration:7.3%}' if name != 'iteration' else ''
        lines.append(f'{name:10} {middle:9.4f} ms (quartiles {low:.4f} and {high:.4f}){share}')
    alone = sum(statistics.median(found[name]) for name in ('places', 'sending', 'seeding', 'asking'))
    both = alone - statistics.median(found['asking']) + statistics.median(found['agreeing'])
    lines.append(f'Of an iteration: {alone / iteration:.2%} in one process, {both / iteration:.2%} in two')
    return '\n'.join(lines)


def cost(args: argparse.Namespace) -> None:
    """Measure and print."""
    silence_useless_warnings()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f'{machine_in_words(describe_machine("cpu"))}\n{report(measure(args.rounds))}')


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--rounds', default=30)
    with user_errors():
        cost(parser.parse_args())


if __name__ == '__main__':
    main()
