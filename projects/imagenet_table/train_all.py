"""Train all rows from scratch on small images, with one recipe, one budget and several seeds.

    python tools/data/fashion_mnist.py unpack
    python projects/imagenet_table/train_all.py --table projects/imagenet_table/comparison.md

First every row is timed and the whole estimated (--estimate ends there). Each training is one of
tools/train.py, tested by tools/test.py. With seed 0 a row is trained with every learning rate; the
one best on held-out training images is the row's for the other seeds too. Run the command again
after an interruption: finished trainings are kept, a broken one goes on. Tables are written after
each seed.

Data, augmentation, loss, optimizer and schedule are those of the repository's Fashion-MNIST config,
in one process; learning rate, batch, epochs and sizes are the options here. A row brings its model
with the hooks it needs, and which of its weights do not decay.
"""

import argparse
import json
import math
import os
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's models

from projects.imagenet_table.page import summarise, table, write_page  # noqa: E402
from projects.imagenet_table.rows import ROOT, ROWS, Row, choose_rows  # noqa: E402
from projects.imagenet_table.small import count_held_out, count_images, small_config  # noqa: E402
from projects.trainings import Trainer, Training, comparing, device, read_log  # noqa: E402
from scopevit.analysis import Entry, Settings, compare  # noqa: E402
from scopevit.analysis.spec import load_network
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors

START_UP = 20.0  # seconds, of training and test together


def config_path(row: Row, args: argparse.Namespace) -> Path:
    """Where the config of a row's trainings is."""
    return Path(args.work_dir).resolve() / f'{Path(row.config).stem.split("_")[0]}.py'


def write_config(row: Row, args: argparse.Namespace) -> Path:
    path = config_path(row, args)
    path.parent.mkdir(parents=True, exist_ok=True)
    small_config(row, args).dump(path)
    return path


def training(row: Row, lr: float, seed: int, args: argparse.Namespace) -> Training:
    """A training of a row, whose config has been written."""
    config = config_path(row, args)
    return Training(
        name=f'{row.name}, learning rate {lr:g}, seed {seed}',
        folder=config.with_suffix('') / f'lr{lr:g}-seed{seed}',
        config=config,
        facts=dict(row=row.name, lr=lr, seed=seed),
        options=(f'optim_wrapper.optimizer.lr={lr}',),
        words=('--amp',) * args.amp,
        is_tested=True,
    )


def estimate(rows: list[Row], args: argparse.Namespace) -> None:
    """Time a few training steps of the rows in turn, and say how long all that is left will take."""
    left = {}
    for row in rows:
        write_config(row, args)
        every = [(lr, seed) for lr in args.lr for seed in range(args.seeds)]
        done = {(lr, seed) for lr, seed in every if training(row, lr, seed, args).result() is not None}
        later = sum(all((lr, seed) not in done for lr in args.lr) for seed in range(1, args.seeds))
        left[row.name] = later + sum((lr, 0) not in done for lr in args.lr)
    size = (args.size, args.size)
    todo = [row for row in rows if left[row.name]]
    if not todo:
        return
    entries = [Entry(row.name, load_network(str(config_path(row, args)))[0], size) for row in todo]
    precision = dict(dtype='bfloat16', autocast=True) if args.amp else {}
    settings = Settings(batch=args.batch, train=True, device=device(), warmup=2, rounds=8, budget=60.0, **precision)
    print(f'timing {len(todo)} rows ...', flush=True)
    # A forward pass takes about a third of a training step.
    images = args.epochs * (args.images + count_held_out(args.data) / 3) + count_images(args.data, 't10k') / 3
    total = 0.0
    for result in compare(entries, settings).results:
        if result.error:
            print(f'{result.label}: {result.error}')
            continue
        seconds = left[result.label] * (images / result.images_per_second + START_UP)
        total += seconds
        print(f'{result.label}: {result.images_per_second:.0f} images/s, about {seconds / 60:.0f} min')
    print(f'{sum(left.values())} trainings, about {total / 3600:.1f} h in all', flush=True)
    del entries
    torch.cuda.empty_cache()  # the trainings are other processes


def measure(ended: Training, args: argparse.Namespace) -> dict | None:
    """Accuracy on the test images, what the training logged, and its speed."""
    log = read_log(ended.folder)
    held_out = {line['step']: round(line['accuracy/top1'], 3) for line in log.validations if 'accuracy/top1' in line}
    if sorted(held_out) != list(range(1, args.epochs + 1)):
        return None
    accuracy = json.loads((ended.folder / 'test' / 'metrics.json').read_text())['accuracy/top1']
    steps = sorted(log.steps.items())
    seconds, waiting = (statistics.median(step[key] for _, step in steps) for key in ('time', 'data_time'))
    return dict(
        accuracy=round(accuracy, 3),
        held_out=[held_out[epoch] for epoch in sorted(held_out)],
        # JSON has no word for a loss that is not finite.
        losses=[[i, round(step['loss'], 4) if math.isfinite(step['loss']) else None] for i, step in steps],
        images_per_second=round(args.batch / seconds, 2),
        seconds_per_epoch=round(-(-args.images // args.batch) * seconds, 3),
        part_waiting_for_data=round(waiting / seconds, 4),
    )


def report(rows: list[Row], results: list[dict], trials: list[dict], args: argparse.Namespace) -> None:
    """Print the table; with ``--table``, write the page."""
    of_row = {row.name: [result for result in results if result['row'] == row.name] for row in rows}
    missing = [
        f'{row.name} seed {seed}'
        for row in rows
        for seed in range(args.seeds)
        if all(result['seed'] != seed for result in of_row[row.name])
    ]
    of_row = {name: own for name, own in of_row.items() if own}
    lines = [summarise(row, of_row[row.name], config_path(row, args), args.size) for row in rows if row.name in of_row]
    print(table(lines))
    if args.table:
        names = ('data', 'size', 'images', 'epochs', 'batch', 'lr', 'amp', 'seeds', 'workers')
        facts = {name: getattr(args, name) for name in names}
        facts.update(data=os.path.relpath(args.data, ROOT))
        facts.update(held_out=count_held_out(args.data), test=count_images(args.data, 't10k'))
        write_page(Path(args.table).with_suffix(''), lines, of_row, facts, missing, trials)


def train_all(args: argparse.Namespace) -> None:
    left = count_images(args.data, 'train') - count_held_out(args.data)
    if not 0 < args.images <= left:
        raise UserError(f'--count must be from 1 to {left}, for the others are held out, but is {args.images}')
    if args.size % 32 or args.size <= 0:
        raise UserError(f'--size must be a multiple of 32, the stride of the rows, but is {args.size}')
    rows = choose_rows(args.rows)
    if args.table and not args.table.endswith('.md'):
        raise UserError(f'--table writes a page: its name must end with .md, but is {args.table}')
    if args.table and len(rows) < len(ROWS):
        raise UserError('--table writes the page of all rows; leave --rows out, or --table')
    says = '{accuracy:.1f} %, {images_per_second:.0f} images/s'.format_map
    with comparing(args, lambda ended: measure(ended, args), says) as trainer:
        estimate(rows, args)
        if not args.estimate:
            train_rows(rows, args, trainer)


def train_rows(rows: list[Row], args: argparse.Namespace, trainer: Trainer) -> None:
    """Do all trainings, seed by seed."""
    results, trials, rates = [], [], {}
    for seed in range(args.seeds):
        if seed == 0:
            found = trainer.run([training(row, lr, 0, args) for row in rows for lr in args.lr])
            for row in rows:
                own = [result for result in found if result['row'] == row.name]
                if len(own) == len(args.lr):
                    trials += own
                    results.append(max(own, key=lambda result: result['held_out'][-1]))
                    rates[row.name] = results[-1]['lr']
        else:
            results += trainer.run([training(row, rates[row.name], seed, args) for row in rows if row.name in rates])
        if results:
            report(rows, results, trials, args)


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('--rows', nargs='+', default=[], metavar='NAME', help='rows to train (default: all)')
    parser.add_argument(
        '--seeds', type=positive, default=3, metavar='N', help='how many, from 0 on (default: %(default)s)'
    )
    square = dict(action='store', nargs=None, type=int, metavar='N')
    add_arguments(parser, '--size', default=64, help='height and width of the images (default: %(default)s)', **square)
    add_arguments(parser, '--count', dest='images', default=1500, help='images to train on (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=3, metavar='N', help='at least 2 (default: %(default)s)')
    add_arguments(parser, '--batch-size', dest='batch', default=16)
    parser.add_argument(
        '--lr', nargs='+', type=float, default=[5e-4, 2e-3], help='learning rates to choose from (default: %(default)s)'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--workers', type=int, default=1, metavar='N', help='processes that load data (default: %(default)s)'
    )
    parser.add_argument(
        '--data',
        default='data/fashion_mnist_subset',
        metavar='DIR',
        help='unpacked Fashion-MNIST (default: %(default)s)',
    )
    add_arguments(parser, '--work-dir', default='work_dirs/imagenet_table')
    table_help = 'write the page, in Markdown, and .json and .png beside it (default: none)'
    add_arguments(parser, '--table', help=table_help)
    parser.add_argument('--estimate', action='store_true', help='only say how long it will take')
    args = parser.parse_args(words)
    for name, least in (('epochs', 2), ('workers', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} must be at least {least}, but is {getattr(args, name)}')
    return args


def main() -> None:
    with user_errors():
        train_all(parse_args())


if __name__ == '__main__':
    main()
