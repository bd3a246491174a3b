"""Measure whether a training waits for its data: time per iteration, split into data and model.

    python tools/analysis/data_time.py configs/detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py
    python tools/analysis/data_time.py CONFIG... --workers 0 2 4 --cfg-options train_dataloader.batch_size=16

The data, the loader and a training step, with the optimizer's update and without hooks, are those of the config.
Waiting is the time until the next batch is there, loaders that start again at a new epoch included; the model's time
is all the rest, with the data preprocessor, which works in this process. Beside both stands what the loader alone
delivers: where that is more than the training takes, data are no bottleneck, unless both share the same CPUs.
"""

import argparse
import gc
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from scopevit.analysis.machine import describe_machine, load_average, machine_in_words
from scopevit.analysis.reporting import markdown, number, summary
from scopevit.checks.training import check_data, failures_explained
from scopevit.engine.launch import build_runner, end_loaders, prepare
from scopevit.utils.config import add_config_options, first_value, load_config, without_weights
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import check_file, whole_file, write_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config file, or one of a toolbox (mmdet::...)')
    parser.add_argument('--iters', type=int, default=50, help='iterations to measure (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=10, help='iterations before them (default: %(default)s)')
    parser.add_argument('--workers', nargs='+', type=int, help="numbers of loader processes (default: the config's)")
    add_config_options(parser)
    parser.add_argument('--json', metavar='FILE', help='write all measurements')
    parser.add_argument('--table', metavar='FILE', help='write the table, in Markdown, and how it came about')
    return parser.parse_args()


def training(config: str, cfg_options: dict | None, workers: int | None, folder: str) -> Runner:
    """The Runner of a config, ready for training steps; nothing is validated, logged or loaded."""
    cfg = load_config(config, cfg_options)
    if not isinstance(cfg.get('train_dataloader'), dict) or not isinstance(cfg.get('optim_wrapper'), dict):
        raise UserError(f'config {config} does not train: it has no train_dataloader or no optim_wrapper')
    cfg.update(dict.fromkeys(('val_dataloader', 'val_cfg', 'val_evaluator', 'load_from')), resume=False)
    cfg.model = ConfigDict(without_weights(cfg.model.to_dict()))
    cfg.log_level = 'ERROR'
    cfg.experiment_name = os.path.basename(folder)  # Runners of one process must differ in it
    if workers is not None:
        loader = cfg.train_dataloader
        loader.num_workers = workers
        if not workers:
            loader.persistent_workers = False
            loader.pop('prefetch_factor', None)
    prepare(cfg, argparse.Namespace(config=config, work_dir=folder, launcher='none', local_rank=0))
    runner = build_runner(cfg)
    check_data(runner, config)
    runner.model.init_weights()
    runner.model.train()
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
    return runner


def endless(runner: Runner) -> Iterator[object]:
    """Batches of one epoch after the other."""
    # A loop that counts iterations has begun to draw; beginning again would end an infinite sampler.
    begun = getattr(runner.train_loop, 'dataloader_iterator', ())
    yield from begun
    while True:
        yield from runner.train_dataloader


def measure(runner: Runner, iters: int, warmup: int) -> dict:
    """Seconds of waiting and of the model in each iteration, and of the loader alone for a batch."""
    loader = runner.train_dataloader
    batches = endless(runner)
    ahead = loader.num_workers * (loader.prefetch_factor or 0)  # what workers may have ready before it is asked for
    for _ in islice(batches, max(warmup, ahead)):
        pass
    # Workers that began together end together: a few batches could all have been ready.
    many = max(iters, 4 * ahead)
    start = time.perf_counter()
    for _ in islice(batches, many):
        pass
    alone = (time.perf_counter() - start) / many

    waiting, model = [], []
    for _ in range(warmup + iters):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        waiting.append(ready - start)
        model.append(time.perf_counter() - ready)
    batches.close()
    return dict(
        waiting=waiting[warmup:],
        model=model[warmup:],
        loader_alone=alone,
        batch=loader.batch_size or loader.batch_sampler.batch_size,
        workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        prefetch_factor=loader.prefetch_factor,
        pin_memory=loader.pin_memory,
        **decoding(runner.cfg),
    )


def decoding(cfg: Config) -> dict:
    """How images are decoded."""
    processes = (cfg.get('env_cfg') or {}).get('mp_cfg') or {}
    return dict(
        decoder=first_value(cfg.train_dataloader, 'imdecode_backend') or 'cv2',
        opencv_threads=processes.get('opencv_num_threads'),
    )


def table(rows: list[dict]) -> str:
    """Times in Markdown, and the settings of each loader."""
    header = ('Config', 'Batch', 'Workers', 'Waiting, ms', 'Model, ms', 'Of the time', 'Images/s', 'Loader alone')
    lines, notes = [header], []
    for row in rows:
        waiting, model = sum(row['waiting']), sum(row['model'])
        images = row['batch'] * len(row['model'])
        lines.append(
            (
                row['config'],
                str(row['batch']),
                str(row['workers']),
                spread(row['waiting']),
                spread(row['model']),
                f'{waiting / (waiting + model):.1%}',
                number(images / (waiting + model), 3),
                number(row['batch'] / row['loader_alone'], 3),
            )
        )
        keys = ('persistent_workers', 'prefetch_factor', 'pin_memory', 'decoder', 'opencv_threads')
        settings = ', '.join(f'{key}={row[key]}' for key in keys)
        notes.append(f'- {row["config"]}, {row["workers"]} workers: {settings}')
    return '\n'.join([markdown(lines), '', *notes])


def spread(seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    found = summary([1e3 * value for value in seconds])
    return '{} ({} to {})'.format(*(number(found[key], 3) for key in ('median', 'quartile1', 'quartile3')))


def data_time(args: argparse.Namespace) -> None:
    if args.iters < 1 or args.warmup < 1 or min(args.workers or [0]) < 0:
        raise UserError('--iters and --warmup must be at least 1, --workers at least 0')
    for option in ('json', 'table'):
        if getattr(args, option):
            check_file(getattr(args, option), f'--{option}')
    rows = []
    machine = describe_machine('cuda' if torch.cuda.is_available() else 'cpu')
    for config in args.configs:
        for workers in args.workers or [None]:
            with tempfile.TemporaryDirectory() as folder:
                runner = training(config, args.cfg_options, workers, folder)
                with failures_explained(runner, config):
                    row = measure(runner, args.iters, args.warmup)
                rows.append(dict(config=Path(config).stem, **row))
                end_loaders(runner)
                del runner
                gc.collect()
    machine['load_after'] = load_average()
    command = shlex.join(['python', os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    text = (
        f'{table(rows)}\n\n'
        "The data preprocessor counts to the model; times are medians and quartiles of an iteration's.\n"
        f'{machine_in_words(machine)}\n\n    {command}\n'
    )
    print(text)
    if args.table:
        with whole_file(args.table) as temporary:
            Path(temporary).write_text(text)
    if args.json:
        write_json(args.json, dict(command=command, machine=machine, results=rows))


def main() -> None:
    args = parse_args()
    with user_errors():
        data_time(args)


if __name__ == '__main__':
    main()
