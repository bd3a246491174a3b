"""Kill and signal trainings at random moments, resume them, and compare with one that was never stopped.

    python projects/reliability/faults.py --table projects/reliability/result.md

Each trial starts a training in a process of its own (some in two), stops it, resumes it to its end and compares the
last checkpoint bit for bit with that of an undisturbed training. Kinds of trials:

  kill          SIGKILL to all processes at a random moment
  kill saving   SIGKILL while a checkpoint is being written
  launcher      SIGKILL to the launcher alone
  SIGTERM, SIGINT, SIGHUP, SIGUSR1   to the training, or to the launcher of two processes

An interrupted run of this script goes on where it was.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch

from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import whole_file

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).resolve().parent / 'configs' / 'random_classifier.py'
SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1')
COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
PATIENCE = 300
ITERATIONS = 40
"""Of an undisturbed training, divided by the number of processes."""


def trials(kills: int, saving: int, signals: int) -> Iterator[dict]:
    """All trials, by number of processes, kind and a seed."""
    for kind, count in (('kill', kills), ('kill saving', saving), ('launcher', signals)):
        for seed in range(count):
            processes = 2 if kind == 'launcher' or seed % 5 == 4 else 1
            yield dict(kind=kind, processes=processes, seed=seed, keep=1 + seed % 2)
    for kind in SIGNALS:
        for processes in (1, 2):
            for seed in range(signals):
                yield dict(kind=kind, processes=processes, seed=seed, keep=1 + seed % 2)


class Training:
    """A training in a folder, and the means to disturb it."""

    def __init__(self, folder: Path, data: Path, processes: int, keep: int = 1, *words: str) -> None:
        self.folder = folder
        self.log = folder.with_suffix('.log')
        options = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
        options += [f'default_hooks.checkpoint.max_keep_ckpts={keep}']
        start = [sys.executable, ROOT / 'tools' / 'train.py', CONFIG]
        if processes > 1:
            start = ['bash', ROOT / 'tools' / 'dist_train.sh', CONFIG, processes]
        command = [*start, '--work-dir', folder, *words, '--cfg-options', *options]
        self.output = open(self.log, 'a')  # noqa: SIM115 - the process writes to it
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        )

    def wait(self) -> int:
        """Exit status; 124 if it does not end."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return 124
        finally:
            self.output.close()

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def wait_until(self, is_met: Callable[[], object]) -> None:
        """Return as soon as something is so, or the training has ended."""
        while not is_met() and self.process.poll() is None:
            time.sleep(0.002)

    def iterations(self) -> int:
        """How many were logged."""
        return self.log.read_text(errors='replace').count('Epoch(train)')


def disturb(training: Training, trial: dict) -> None:
    """Stop a training in the way of a trial, at a moment that its seed says."""
    draw = random.Random(f'{trial["kind"]} {trial["seed"]}')
    if trial['kind'] == 'kill saving':
        epoch = draw.randrange(2, 9)
        training.wait_until(lambda: (training.folder / f'epoch_{epoch}.pth').exists())
        training.wait_until(lambda: list(training.folder.glob('.unfinished_*.pth')))
        time.sleep(draw.uniform(0, 0.02))
        training.kill()
        return
    iteration = draw.randrange(1, ITERATIONS // trial['processes'])
    training.wait_until(lambda: training.iterations() >= iteration)
    time.sleep(draw.uniform(0, 0.1))
    if training.process.poll() is not None:
        return
    if trial['kind'] == 'kill':
        training.kill()
    elif trial['kind'] == 'launcher':
        training.process.kill()
    else:
        training.process.send_signal(getattr(signal, trial['kind']))


def left_running(session: int) -> int:
    """Processes of a training that are still there."""
    count = 0
    for process in psutil.process_iter():
        try:
            count += os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return count


def run(trial: dict, folder: Path, data: Path, expected: dict) -> dict:
    """One trial; returns it with what happened."""
    work_dir = folder / '-'.join(str(value).replace(' ', '_') for value in trial.values())
    training = Training(work_dir, data, trial['processes'], trial['keep'])
    disturb(training, trial)
    status = training.wait()
    deadline = time.monotonic() + 60
    while left_running(training.process.pid) and time.monotonic() < deadline:
        time.sleep(0.5)
    left, done = left_running(training.process.pid), training.iterations()
    before = training.log.read_text(errors='replace')
    resumed = Training(work_dir, data, trial['processes'], trial['keep'], '--resume')
    again = resumed.wait()
    after = training.log.read_text(errors='replace')[len(before) :]
    start = after.partition('iteration ')[2].partition('\n')[0] if 'goes on from' in after else '0'
    final = sorted(work_dir.glob('epoch_10.pth'))
    return dict(
        trial,
        status=status,
        left_running=left,
        resumed=again == 0,
        lost=max(done - int(start.strip() or 0), 0),
        equal=bool(final) and all(equal(read_checkpoint(str(final[0]))[key], expected[key]) for key in COMPARED),
        traceback='Traceback' in before,
    )


def equal(a: object, b: object) -> bool:
    """Whether two nested values are the same to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a == b


def expected_status(kind: str) -> int:
    """How a training that is disturbed so ends: only SIGKILL ends it at once."""
    return 128 + getattr(signal, kind) if kind in SIGNALS else -signal.SIGKILL


def table(rows: list[dict]) -> str:
    """What happened by kind and number of processes, in Markdown."""
    heads = (
        'Fault',
        'Processes',
        'Tried',
        'Was faster',
        'Ended as it should',
        'Resumed',
        'Bit-equal',
        'Most iterations lost',
        'Left running',
        'Tracebacks',
    )
    lines = [f'| {" | ".join(heads)} |', '| --- |' + ' ---: |' * (len(heads) - 1)]
    for kind, processes in sorted({(row['kind'], row['processes']) for row in rows}):
        some = [row for row in rows if (row['kind'], row['processes']) == (kind, processes)]
        counts = (
            sum(row['status'] == 0 for row in some),
            sum(row['status'] == expected_status(kind) for row in some),
            sum(row['resumed'] for row in some),
            sum(row['equal'] for row in some),
            max(row['lost'] for row in some),
            sum(row['left_running'] for row in some),
            sum(row['traceback'] for row in some),
        )
        lines.append(f'| {kind} | {processes} | {len(some)} | ' + ' | '.join(map(str, counts)) + ' |')
    return '\n'.join(lines)


def faults(args: argparse.Namespace) -> None:
    """Run all trials that were not run yet."""
    folder = Path(args.work_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / 'fashion_mnist'
    if not data.exists():
        unpack = [sys.executable, ROOT / 'tools' / 'data' / 'fashion_mnist.py', 'unpack', '--out-dir', data]
        subprocess.run(list(map(str, unpack)), check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    expected = {}
    for processes in (1, 2):
        work_dir = folder / f'undisturbed_{processes}'
        if not (work_dir / 'epoch_10.pth').exists() and Training(work_dir, data, processes, 1, '--resume').wait():
            raise UserError(f'the undisturbed training failed: see {work_dir}.log')
        expected[processes] = read_checkpoint(str(work_dir / 'epoch_10.pth'))
    results = folder / 'results.jsonl'
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(row['kind'], row['processes'], row['seed']) for row in rows}
    # What is started in the background ignores these, as would the trainings.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    todo = list(trials(args.kills, args.saving, args.signals))
    left = [trial for trial in todo if (trial['kind'], trial['processes'], trial['seed']) not in known]
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda trial: run(trial, folder, data, expected[trial['processes']]), left):
            rows.append(row)
            with open(results, 'a') as file:
                file.write(json.dumps(row) + '\n')
            print(f'[{len(rows)}/{len(todo)}] {row}', flush=True)
    if args.table:
        command = shlex.join(['python', os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
        with whole_file(args.table) as temporary:
            Path(temporary).write_text(
                f'# What trainings survived\n\n    {command}\n\n{machine_in_words(describe_machine("cpu"))} '
                'A training of one process has 40 iterations and saves every fourth, one of two has 20 and saves every '
                'second.\n\n'
                f'{table(rows)}\n'
            )


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--kills', type=positive, default=30, metavar='N', help='trials of that kind (default: %(default)s)'
    )
    parser.add_argument(
        '--saving', type=positive, default=20, metavar='N', help='trials of kill saving (default: %(default)s)'
    )
    parser.add_argument(
        '--signals', type=positive, default=10, metavar='N', help='trials of each other kind (default: %(default)s)'
    )
    parser.add_argument('--jobs', type=positive, default=1, metavar='N', help='trials at a time (default: %(default)s)')
    add_arguments(parser, '--work-dir', default='work_dirs/faults')
    add_arguments(parser, '--table', help='write a table of all results, in Markdown (default: none)')
    with user_errors():
        faults(parser.parse_args())


if __name__ == '__main__':
    main()
