"""Kill and signal trainings at random moments, resume them, and compare with one that was never stopped.

    python projects/reliability/faults.py --table projects/reliability/result.md

Each trial starts a training in a process of its own (some in two), stops it, resumes it to its end and compares the
last checkpoint bit for bit with that of an undisturbed training. Kinds of trials:

  kill          SIGKILL to all processes at once, at a random moment
  kill saving   the same at a stage of writing a checkpoint
  launcher      SIGKILL to the launcher alone
  full disk     the disk is filled up at a random moment (Linux, as root)
  SIGTERM, SIGINT, SIGHUP, SIGUSR1   to the training, or to the launcher of two processes

An interrupted run of this script goes on where it was.
"""

import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from disturbed_training import ROOT, SmallDisk, Training

from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.checkpoint import CheckpointError, read_checkpoint
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import UNFINISHED, write_whole

CONFIG = Path(__file__).resolve().parent / 'configs' / 'random_classifier.py'
SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1')
STAGES = ('its file is begun', 'its file is renamed', 'last_checkpoint names it', 'any moment of the save')
"""After which a trial kills that does so while a checkpoint is saved."""
KILLS = ('kill', 'kill saving')
COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
ITERATIONS = 40
"""Of an undisturbed training, divided by the number of processes."""
MEGABYTE = 10**6
SHOWN_BY_TESTS = (
    # Fault, tried, survived, lost, message, file of the tests, and the one that shows it.
    (
        'Checkpoints made to do harm, compressed and endlessly nested ones among them, to every tool that takes one',
        *('over 40', 'all', 0, 'error: CHECKPOINT ...'),
        *('tools/test_hostile_files.py', 'test_every_tool_refuses_every_hostile_checkpoint'),
    ),
    (
        'A checkpoint that was cut off, or has one bit changed, is the newest',
        *(2, 2, 'what came after the one before', 'Passed over: ...'),
        *('engine/test_resume.py', 'test_newest_whole_checkpoint_is_found'),
    ),
    (
        'An image of 30,000 x 30,000 pixels',
        *(1, 1, 'that image', 'bomb.png has more than 178,956,970 pixels'),
        *('tools/test_predict.py', 'test_pixels_are_bounded_and_the_bound_is_an_option'),
    ),
    (
        'Names of files that are not UTF-8, or as long as can be',
        *(4, 4, 0, ''),
        *('tools/test_predict.py', 'test_names_that_are_not_utf_8_and_those_as_long_as_can_be'),
    ),
    (
        'The disk is full while predictions are written',
        *(3, 3, 'what there was no room for', 'error: 1 of 3 inputs ...'),
        *('tools/test_predict.py', 'test_a_disk_that_takes_no_more_costs_one_line_and_not_the_other_inputs'),
    ),
    (
        'A second training in the work dir of one that runs',
        *(1, 1, 0, 'error: another training runs in WORK_DIR ...'),
        *('engine/test_resume.py', 'test_a_folder_is_one_runs'),
    ),
    (
        "A start without --resume among another run's checkpoints",
        *(1, 1, 0, 'error: WORK_DIR has checkpoints of another run ...'),
        *('engine/test_resume.py', 'test_a_folder_is_one_runs'),
    ),
    (
        "A data loader's process is killed",
        *(1, 1, 'as by a kill', 'error: a process of the data loader was ended ...'),
        *('checks/test_training.py', 'test_a_data_loaders_process_that_is_gone_is_explained'),
    ),
    (
        'One of two training processes is killed',
        *(2, 2, 'as by a kill', 'error: process 1 was ended by SIGKILL; ...'),
        *('tools/test_train.py', 'test_killed_rank_ends_the_launcher'),
    ),
)


def trials(kills: int, saving: int, signals: int, full: int) -> Iterator[dict]:
    """All trials, by number of processes, kind and a seed."""
    for kind, count in (('kill', kills), ('kill saving', saving), ('launcher', signals), ('full disk', full)):
        for seed in range(count):
            processes = 2 if kind == 'launcher' or seed % 5 == 4 else 1
            # Every stage with one checkpoint kept and with two.
            stage = dict(stage=STAGES[seed // 2 % len(STAGES)]) if kind == 'kill saving' else {}
            yield dict(kind=kind, processes=processes, seed=seed, keep=1 + seed % 2, **stage)
    for kind in SIGNALS:
        for processes in (1, 2):
            for seed in range(signals):
                yield dict(kind=kind, processes=processes, seed=seed, keep=1 + seed % 2)


class Trial:
    """One training that is disturbed, and resumed.

    Args:
        trial: What is tried, one of :func:`trials`.
        folder: Where its work dir is to be.
        data: The folder of Fashion-MNIST.
    """

    def __init__(self, trial: dict, folder: Path, data: Path) -> None:
        self.trial = trial
        self.draw = random.Random(f'{trial["kind"]} {trial["seed"]}')
        self.data = data
        names = (trial[key] for key in ('kind', 'processes', 'seed', 'keep'))
        self.folder = self.seen = folder / '-'.join(str(name).replace(' ', '_') for name in names)
        shutil.rmtree(self.folder, ignore_errors=True)  # of a trial that was interrupted
        self.folder.with_suffix('.log').unlink(missing_ok=True)
        self.disk: SmallDisk | None = None
        self.found: str | None = None
        """What a kill while saving left."""
        self.moment = 0.0
        """When the fault was."""
        if trial['kind'] == 'full disk':  # with room for the checkpoints that are kept, the new one and logs
            self.disk = SmallDisk(self.folder, (5 * trial['keep'] + 5 + 2) * MEGABYTE)
            self.seen = self.disk.folder

    def start(self, *words: str) -> Training:
        """Begin the training, or go on with it."""
        inside = self.disk.inside if self.disk else ()
        options = options_of(self.data, self.trial['keep'])
        return Training(CONFIG, self.folder, self.trial['processes'], [*words, *options], inside)

    def disturb(self, training: Training) -> None:
        """Stop the training in the way of the trial, at a moment that its seed says."""
        if self.trial['kind'] == 'kill saving':
            self.kill_saving(training)
            return
        iteration = self.draw.randrange(1, ITERATIONS // self.trial['processes'])
        training.wait_until(lambda: training.iterations() >= iteration)
        if self.disk:  # there is something to keep
            training.wait_until(lambda: list(self.seen.glob('epoch_*.pth')))
        time.sleep(self.draw.uniform(0, 0.1))
        if training.process.poll() is not None:
            return
        processes = training.running()  # those that a launcher leaves behind are known by this
        self.moment = time.monotonic()
        if self.trial['kind'] == 'kill':
            training.kill(processes)
        elif self.trial['kind'] == 'launcher':
            training.process.kill()
        elif self.disk:
            # Down to the last byte, so that not even a log can be written, or to less than a checkpoint.
            self.disk.fill(self.draw.choice([0, self.draw.randrange(4 * MEGABYTE)]))
        else:
            training.process.send_signal(getattr(signal, self.trial['kind']))

    def kill_saving(self, training: Training) -> None:
        """Kill the training when the checkpoint that it saves has come to the trial's stage."""
        epoch = self.draw.randrange(2, 9)
        share, stage = self.draw.random(), self.trial['stage']

        def begun(share: float | None = None) -> bool:
            sizes = [size_of(path) for path in self.seen.glob(f'{UNFINISHED}*.pth')]
            return any(share is None or size > share * size_of(before) for size in sizes)

        def named(path: Path) -> bool:
            return self.named() == path.name

        # How long the one before takes says which moments there are.
        before, path = (self.seen / f'epoch_{number}.pth' for number in (epoch, epoch + 1))
        training.wait_until((self.seen / f'epoch_{epoch - 1}.pth').exists)
        training.wait_until(begun)
        moment = time.monotonic()
        training.wait_until(lambda: named(before))
        lasted = time.monotonic() - moment
        processes = training.running()
        training.wait_until(begun, pause=0.0002)
        if stage == STAGES[0]:
            training.wait_until(lambda: path.exists() or begun(share), pause=0.0002)
        elif stage == STAGES[1]:
            training.wait_until(path.exists, pause=0.0002)
        elif stage == STAGES[2]:
            training.wait_until(lambda: named(path), pause=0.0002)
        else:
            time.sleep(share * lasted)
        self.moment = time.monotonic()
        if training.process.poll() is None:
            training.kill(processes)
            self.found = self.left_by_kill(epoch + 1)

    def named(self) -> str:
        """The name of the last checkpoint, as the run has noted it."""
        last = self.seen / 'last_checkpoint'
        return os.path.basename(last.read_text()) if last.exists() else ''

    def left_by_kill(self, epoch: int) -> str:
        """In which state the checkpoint of an epoch and its folder are."""
        path = self.seen / f'epoch_{epoch}.pth'
        old = self.seen / f'epoch_{epoch - self.trial["keep"]}.pth'
        for unfinished in self.seen.glob(f'{UNFINISHED}*.pth'):
            if not size_of(unfinished):
                return 'empty file'
            return 'whole file, not renamed' if is_whole(unfinished) else 'half-written file'
        if not path.exists():
            return 'no file'
        if self.named() != path.name:
            return 'whole file, not named'
        return 'whole file, named, the old one there' if old.exists() else 'whole file, named, the old one removed'

    def run(self, expected: dict) -> dict:
        """The trial; returns it with what happened.

        Args:
            expected: The last checkpoint of a training that was not disturbed.
        """
        training = self.start()
        self.disturb(training)
        status = training.wait()
        # A full disk ends nothing at once, and some trainings are faster than their fault.
        is_ended_by_it = self.moment and not self.disk
        left, seconds = training.left_after(self.moment if is_ended_by_it else time.monotonic())
        done, before = training.iterations(), training.log.read_text(errors='replace')
        saved = [path for path in self.seen.glob('*.pth') if not path.name.startswith(UNFINISHED)]
        damaged = [path for path in saved if not is_whole(path)]
        if self.trial['kind'] not in KILLS:
            damaged += self.seen.glob(f'{UNFINISHED}*')
        if self.disk:
            self.disk.make_room()
        resumed = self.start('--resume')
        again = resumed.wait()
        left += resumed.left_after(time.monotonic())[0]
        after = training.log.read_text(errors='replace')[len(before) :]
        start = re.search(r'goes on from epoch \d+, iteration (\d+)', after)
        final = self.seen / 'epoch_10.pth'
        says = told(before) if self.trial['kind'] not in KILLS else told(after, 'goes on from')
        row = dict(
            self.trial,
            status=status,
            left_running=left,
            seconds=round(seconds, 1),
            resumed=again == 0,
            lost=max(done - int(start[1] if start else 0), 0),
            equal=is_whole(final) and is_as_expected(final, expected),
            traceback='Traceback' in before + after,
            saved=len(re.findall(r'SIG\w+: saved ', before)),
            other=len([line for line in told(before) if not re.search(r'SIG\w+: saved ', line)]),
            files=len(saved),
            damaged=len(damaged),
            message=says[-1].replace(f'{self.folder}{os.sep}', '') if says else '',
            found=self.found,
        )
        if self.disk:
            self.disk.close()
        if survived(row):  # of others the folder stays, to be looked into
            shutil.rmtree(self.folder)
        return row


def options_of(data: Path, keep: int) -> list[str]:
    """The last words of all trainings."""
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    return ['--cfg-options', *roots, f'default_hooks.checkpoint.max_keep_ckpts={keep}']


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and as its checksums say."""
    try:
        read_checkpoint(str(path))
    except CheckpointError:
        return False
    return True


def told(log: str, *words: str) -> list[str]:
    """What a training said beyond its progress, and its lines with some words, without dates."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith('  ')]
    said = [line for line in lines if ' - INFO -' not in line or any(word in line for word in words)]
    return [re.sub(r'^.* - (INFO|WARNING|ERROR) - ', '', line) for line in said]


def is_as_expected(path: Path, expected: dict) -> bool:
    """Whether a checkpoint is to the bit the one that was to come out."""
    found = read_checkpoint(str(path))
    return all(equal(found[key], expected[key]) for key in COMPARED)


def equal(a: object, b: object) -> bool:
    """Whether two nested values are the same to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a == b


def expected_status(kind: str) -> int:
    """How a training that is disturbed so ends: only SIGKILL ends it at once."""
    if kind == 'full disk':
        return 1
    return 128 + getattr(signal, kind) if kind in SIGNALS else -signal.SIGKILL


def survived(row: dict) -> bool:
    """Whether all was as promised in a trial."""
    ended = row['status'] in (0, expected_status(row['kind']))
    says = row['saved'] == (row['kind'] in SIGNALS or row['kind'] == 'launcher') if row['status'] else True
    clean = not (row['left_running'] or row['traceback'] or row['damaged'])
    quiet = row['files'] if row['kind'] == 'full disk' else not row['other']  # a disk leaves what was saved before
    return bool(ended and says and clean and quiet and row['resumed'] and row['equal'])


def by_fault(rows: list[dict]) -> Iterator[tuple[str, int, list[dict]]]:
    """The trials by fault and number of processes."""
    labels = [(row['kind'] + (f', {row["stage"]}' if 'stage' in row else ''), row['processes']) for row in rows]
    for label in sorted(set(labels)):
        yield *label, [row for row, own in zip(rows, labels) if own == label]


def columns(rows: list[dict]) -> dict[str, object]:
    """What happened in trials of one kind, by the heads of the table."""
    told = [row['saved'] for row in rows if row['status']]
    return {
        'Tried': len(rows),
        'Was faster': sum(row['status'] == 0 for row in rows),
        'Ended as it should': sum(row['status'] == expected_status(row['kind']) for row in rows),
        'Resumed': sum(row['resumed'] for row in rows),
        'Bit-equal': sum(row['equal'] for row in rows),
        'Lines of a saving': span(told),
        'Other lines': span([row['other'] for row in rows]),
        'Damaged files': sum(row['damaged'] for row in rows),
        'Left running': sum(row['left_running'] for row in rows),
        'Seconds until gone': max(row['seconds'] for row in rows),
        'Tracebacks': sum(row['traceback'] for row in rows),
    }


def span(numbers: list[int]) -> str:
    """Least and most of some numbers."""
    return ' to '.join(dict.fromkeys(f'{number}' for number in (min(numbers), max(numbers)))) if numbers else ''


def table(rows: list[dict]) -> str:
    """What happened by kind and number of processes, in Markdown."""
    faults = [(fault, processes, columns(some)) for fault, processes, some in by_fault(rows)]
    heads = ['Fault', 'Processes', *faults[0][2]]
    lines = [line(heads), '| --- |' + ' ---: |' * (len(heads) - 1)]
    return '\n'.join([*lines, *(line([fault, processes, *values.values()]) for fault, processes, values in faults)])


def line(values: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f'| {" | ".join(str(value).replace("|", chr(92) + "|") for value in values)} |'


def flat_table(rows: list[dict]) -> str:
    """What was tried, survived and lost, and what a user reads of it, in Markdown."""
    lines = [line(['Fault', 'Tried', 'Survived', 'Lost at most', 'Message', 'Shown by'])]
    lines += ['| --- | ---: | ---: | --- | --- | --- |']
    for fault, processes, some in by_fault(rows):
        messages = Counter(re.sub(r'(?<![A-Za-z])\d+', 'N', row['message']) for row in some if row['message'])
        lost = max(row['lost'] for row in some)
        said = next((f'`{message}`' for message, _ in messages.most_common(1)), '')
        values = (len(some), sum(map(survived, some)), f'{lost} iterations' if lost else 0, said)
        lines.append(line([f'{fault}; {processes} process{"es" * (processes > 1)}', *values, 'faults.py']))
    for fault, tried, passed, lost, message, file, name in SHOWN_BY_TESTS:
        lines.append(line([fault, tried, passed, lost, f'`{message}`' if message else '', f'tests/{file}: {name}']))
    return '\n'.join(lines)


def found_table(rows: list[dict]) -> str:
    """What kills while saving have left, in Markdown."""
    counts = Counter((row['stage'], row['found'] or 'the training was faster') for row in rows if 'stage' in row)
    lines = [line([stage, found, count]) for (stage, found), count in sorted(counts.items())]
    return '\n'.join([line(['Killed when', 'What was there', 'Trials']), '| --- | --- | ---: |', *lines])


def page(rows: list[dict], command: str, note: str) -> str:
    """The results, in Markdown."""
    machine = machine_in_words(describe_machine('cpu'))
    parts = [
        '# What trainings survived',
        f'    {command}',
        f'{machine} A training of one process has 40 iterations and saves every fourth, one of two has 20 and saves '
        'every second. Survived: it ended with the status and the lines that are promised, nothing was left running or '
        'damaged, and what was resumed ended bit for bit as the training that was never stopped.' + note,
        flat_table(rows),
        "The kills' message is what `--resume` says, that of a full disk what the training ends with; N stands for "
        'numbers. In detail, `Lines of a saving` being those as `SIGTERM: saved`:',
        table(rows),
        'Kills while a checkpoint was saved:',
        found_table(rows),
    ]
    return '\n\n'.join(parts) + '\n'


def undisturbed(folder: Path, data: Path) -> dict[int, dict]:
    """The last checkpoints of undisturbed trainings, by number of processes."""
    expected = {}
    for processes in (1, 2):
        work_dir = folder / f'undisturbed_{processes}'
        words = ['--resume', *options_of(data, 1)]
        if not (work_dir / 'epoch_10.pth').exists() and Training(CONFIG, work_dir, processes, words).wait():
            raise UserError(f'the undisturbed training failed: see {work_dir}.log')
        expected[processes] = read_checkpoint(str(work_dir / 'epoch_10.pth'))
    return expected


def why_no_disk(folder: Path) -> str | None:
    """Why no disk can be filled up on this machine, if so."""
    try:
        SmallDisk(folder / 'disk', MEGABYTE).close()
    except UserError as error:
        return str(error)
    return None


def faults(args: argparse.Namespace) -> None:
    """Run all trials that were not run yet."""
    folder = Path(args.work_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / 'fashion_mnist'
    if not data.exists():
        unpack = [sys.executable, ROOT / 'tools' / 'data' / 'fashion_mnist.py', 'unpack', '--out-dir', data]
        subprocess.run(list(map(str, unpack)), check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    expected = undisturbed(folder, data)
    results = folder / 'trials.jsonl'
    rows = [json.loads(text) for text in results.read_text().splitlines()] if results.exists() else []
    known = {(row['kind'], row['processes'], row['seed']) for row in rows}
    # What is started in the background ignores these, as would the trainings.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    skipped = why_no_disk(folder)
    note = f' Full disks were skipped: {skipped}.' if skipped else ''
    print(note.strip(), end='\n' if note else '')
    todo = list(trials(args.kills, args.saving, args.signals, 0 if skipped else args.full))
    left = [trial for trial in todo if (trial['kind'], trial['processes'], trial['seed']) not in known]
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda trial: Trial(trial, folder, data).run(expected[trial['processes']]), left):
            rows.append(row)
            with open(results, 'a') as file:
                file.write(json.dumps(row) + '\n')
            print(f'[{len(rows)}/{len(todo)}] {"survived" if survived(row) else "NOT SURVIVED"} {row}', flush=True)
    if args.table:
        command = shlex.join(['python', os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
        write_whole(args.table, page(rows, command, note))


def main() -> None:
    parser = tool_parser(__doc__)
    number = dict(type=positive, metavar='N')
    parser.add_argument('--kills', **number, default=30, help='trials of that kind (default: %(default)s)')
    parser.add_argument('--saving', **number, default=20, help='trials of kill saving (default: %(default)s)')
    parser.add_argument(
        '--signals', **number, default=10, help='trials of each signal and of launcher (default: %(default)s)'
    )
    parser.add_argument('--full', **number, default=10, help='trials of full disk (default: %(default)s)')
    parser.add_argument('--jobs', **number, default=1, help='trials at a time (default: %(default)s)')
    add_arguments(parser, '--work-dir', default='work_dirs/faults')
    add_arguments(parser, '--table', help='write a table of all results, in Markdown (default: none)')
    with user_errors():
        faults(parser.parse_args())


if __name__ == '__main__':
    main()
