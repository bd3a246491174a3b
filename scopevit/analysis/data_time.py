"""How long a training waits for its data."""

import math
import time
from collections.abc import Generator
from itertools import islice

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ..utils.config import first_value
from ..utils.tables import markdown
from .reporting import number, summary


def endless(runner: Runner) -> Generator[object, None, None]:
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


def cores_for(row: dict, speed: int, gpus: int, cores: int) -> str:
    """How many cores of this kind feed GPUs, from what the loader alone delivered on those that are here."""
    used = min(row['workers'] or 1, cores)  # workers beyond the cores take turns
    each = row['batch'] / row['loader_alone'] / used
    number = math.ceil(speed / each)
    return (
        f'{row["config"]}: {gpus} GPUs at {speed:,} images/s need {gpus * number:,} cores for their workers, '
        f'{number:,} each, at {each:.3g} images/s and core ({row["workers"]} workers on {used} cores here)'
    )


def spread(seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    found = summary([1e3 * value for value in seconds])
    return '{} ({} to {})'.format(*(number(found[key], 3) for key in ('median', 'quartile1', 'quartile3')))
