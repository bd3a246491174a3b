"""Train all rows from scratch on small images, with one recipe, one budget and several seeds.

    python tools/data/fashion_mnist.py unpack
    python projects/imagenet_table/train_all.py --table projects/imagenet_table/comparison.md

First every row is timed and the whole estimated (--estimate ends there). Each training is one of
tools/train.py, tested by tools/test.py. With seed 0 a row is trained with every learning rate; the
one best on held-out training images is the row's for the other seeds too. Run the command again
after an interruption: finished trainings are kept, a broken one goes on after its last validated
epoch. Tables are written after each seed.

Data, augmentation, loss, optimizer and schedule are those of the repository's Fashion-MNIST config,
in one process; learning rate, batch, epochs and sizes are the options here. A row brings its model
with the hooks it needs, and which of its weights do not decay.
"""

import argparse
import fcntl
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's models

from projects.imagenet_table.page import summarise, table, write_page  # noqa: E402
from projects.imagenet_table.rows import ROOT, ROWS, Row, choose_rows  # noqa: E402
from projects.imagenet_table.small import count_held_out, count_images, small_config  # noqa: E402
from scopevit.analysis import Entry, Settings, compare  # noqa: E402
from scopevit.analysis.machine import describe_machine  # noqa: E402
from scopevit.analysis.spec import load_network
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors

SETTINGS = ('data', 'size', 'images', 'epochs', 'batch', 'lr', 'amp')
OPTIONS = dict(images='count', batch='batch-size')  # of other names than the settings
START_UP = 20.0  # seconds, of training and test together


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Let one process at a time train in a folder.

    Raises:
        UserError: If another one does, or a training that a killed one has left behind.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'lock'), 'w') as file:
        os.set_inheritable(file.fileno(), True)  # a training holds it until it ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'a training in {folder} still runs; wait for it or end it, or give another --work-dir'
            ) from None
        yield


def claim(args: argparse.Namespace, write: bool = True) -> None:
    """Write a folder's settings down; in a folder with others nothing is mixed."""
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings['data'] = os.path.abspath(args.data)
    file = Path(args.work_dir) / 'settings.json'
    begun = json.loads(file.read_text()) if file.exists() else settings
    if begun != settings:
        differing = [name for name in SETTINGS if begun.get(name) != settings[name]]
        others = ', '.join(f'--{OPTIONS.get(name, name)} {begun.get(name)}' for name in differing)
        raise UserError(f'{args.work_dir} was begun with other settings ({others}); give those, or another --work-dir')
    if write:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=1) + '\n')


def write_config(row: Row, args: argparse.Namespace) -> Path:
    path = Path(args.work_dir) / f'{_stem(row)}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    small_config(row, args).dump(path)
    return path


def _stem(row: Row) -> str:
    return Path(row.config).stem.split('_')[0]


def folder_of(row: Row, lr: float, seed: int, args: argparse.Namespace) -> Path:
    return Path(args.work_dir) / _stem(row) / f'lr{lr:g}-seed{seed}'


def estimate(rows: list[Row], args: argparse.Namespace) -> None:
    """Time a few training steps of the rows in turn, and say how long all that is left will take."""
    left = {}
    for row in rows:
        done = {
            (lr, seed)
            for lr in args.lr
            for seed in range(args.seeds)
            if (folder_of(row, lr, seed, args) / 'result.json').exists()
        }
        later = sum(all((lr, seed) not in done for lr in args.lr) for seed in range(1, args.seeds))
        left[row.name] = later + sum((lr, 0) not in done for lr in args.lr)
    size = (args.size, args.size)
    todo = [row for row in rows if left[row.name]]
    if not todo:
        return
    entries = [Entry(row.name, load_network(str(write_config(row, args)))[0], size) for row in todo]
    precision = dict(dtype='bfloat16', autocast=True) if args.amp else {}
    settings = Settings(batch=args.batch, train=True, device=_device(), warmup=2, rounds=8, budget=60.0, **precision)
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


class Log(NamedTuple):
    """What a training wrote: accuracy by epoch, loss by iteration, and seconds of iterations."""

    held_out: dict[int, float]
    losses: dict[int, float]
    times: list[float]
    data_times: list[float]


def read_log(work_dir: Path) -> Log:
    """Read all parts of a training, broken ones too."""
    log = Log({}, {}, [], [])
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            entry = json.loads(line) if line.endswith('}') else {}  # the last line of one that was killed
            if 'accuracy/top1' in entry:
                log.held_out[entry['step']] = round(entry['accuracy/top1'], 3)
            elif 'loss' in entry:
                # JSON has no word for a loss that is not finite.
                log.losses[entry['iter']] = round(entry['loss'], 4) if math.isfinite(entry['loss']) else None
                log.times.append(entry['time'])
                log.data_times.append(entry['data_time'])
    return log


def rewind(work_dir: Path) -> None:
    """Go back to the last checkpoint that was validated: the next one may be broken, or its accuracy lost."""
    validated = read_log(work_dir).held_out
    checkpoints = {int(re.sub(r'\D', '', path.stem)): path for path in work_dir.glob('epoch_*.pth')}
    whole = sorted(set(checkpoints) & set(validated))
    if not whole:
        shutil.rmtree(work_dir, ignore_errors=True)
        return
    (work_dir / 'last_checkpoint').write_text(str(checkpoints[whole[-1]].resolve()))
    for epoch in set(checkpoints) - set(whole):
        checkpoints[epoch].unlink()


def train(row: Row, lr: float, seed: int, args: argparse.Namespace) -> dict:
    """Run one training and its test to the end, unless that was done before; returns what was measured.

    Raises:
        UserError: If it fails.
    """
    work_dir = folder_of(row, lr, seed, args)
    file = work_dir / 'result.json'
    if file.exists():
        remove_checkpoints(work_dir)
        return json.loads(file.read_text())
    print(f'{row.name}, learning rate {lr:g}, seed {seed} ...', end=' ', flush=True)
    rewind(work_dir)
    machine = describe_machine(_device())
    config = write_config(row, args)
    words = ['--seed', seed, '--resume', '--cfg-options', f'optim_wrapper.optimizer.lr={lr}']
    if args.epochs not in read_log(work_dir).held_out:
        _tool('train.py', config, '--work-dir', work_dir, *['--amp'] * args.amp, *words, log=Path(f'{work_dir}.log'))
    log = read_log(work_dir)
    if sorted(log.held_out) != list(range(1, args.epochs + 1)):
        raise UserError(f'{work_dir} lacks the accuracy of an epoch; remove it, and run this again')
    checkpoint, test_dir = work_dir / f'epoch_{args.epochs}.pth', work_dir / 'test'
    _tool('test.py', config, checkpoint, '--work-dir', test_dir, log=Path(f'{work_dir}.log'))
    accuracy = json.loads((test_dir / 'metrics.json').read_text())['accuracy/top1']
    seconds = statistics.median(log.times)
    result = dict(row=row.name, lr=lr, seed=seed, accuracy=round(accuracy, 3))
    result.update(held_out=[log.held_out[epoch] for epoch in sorted(log.held_out)])
    result.update(losses=sorted(log.losses.items()))
    result.update(
        images_per_second=round(args.batch / seconds, 2),
        seconds_per_epoch=round(-(-args.images // args.batch) * seconds, 3),
        part_waiting_for_data=round(statistics.median(log.data_times) / seconds, 4),
        machine=machine,
    )
    unfinished = file.with_suffix('.tmp')
    unfinished.write_text(json.dumps(result) + '\n')
    unfinished.replace(file)
    remove_checkpoints(work_dir)
    print(f'{accuracy:.1f} %, {result["images_per_second"]:.0f} images/s', flush=True)
    return result


def remove_checkpoints(work_dir: Path) -> None:
    for path in (*work_dir.glob('*.pth'), work_dir / 'last_checkpoint'):
        path.unlink(missing_ok=True)


def _tool(name: str, *words: object, log: Path) -> None:
    """Run one of tools/, and add what it prints to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, words)]
    with log.open('a') as file:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        # close_fds=False: it inherits the folder's lock, and nothing else.
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, close_fds=False)
    if done.returncode:
        print('failed', flush=True)
        raise UserError(f'{name} failed; see {log}')


def _device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


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
    lines = [summarise(row, of_row[row.name], write_config(row, args), args.size) for row in rows if row.name in of_row]
    print(table(lines))
    if args.table:
        facts = {name: getattr(args, name) for name in (*SETTINGS, 'seeds', 'workers')}
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
    if args.estimate:
        claim(args, write=False)
        estimate(rows, args)
        return
    with locked(args.work_dir):
        claim(args)
        estimate(rows, args)
        train_rows(rows, args)


def train_rows(rows: list[Row], args: argparse.Namespace) -> None:
    """Do all trainings, seed by seed.

    Raises:
        UserError: At the end, if some failed.
    """
    results, trials, rates, failures = [], [], {}, []
    for seed in range(args.seeds):
        for row in rows:
            try:
                if seed == 0:
                    own = [train(row, lr, 0, args) for lr in args.lr]
                    trials += own
                    results.append(max(own, key=lambda result: result['held_out'][-1]))
                    rates[row.name] = results[-1]['lr']
                elif row.name in rates:
                    results.append(train(row, rates[row.name], seed, args))
            except UserError as error:  # the others go on
                failures.append(f'{row.name}, seed {seed}: {error}')
        if results:
            report(rows, results, trials, args)
    if failures:
        raise UserError('; '.join(failures))


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and with this process the training that it runs
    with user_errors():
        train_all(parse_args())


if __name__ == '__main__':
    main()
