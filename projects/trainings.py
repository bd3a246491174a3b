"""What the projects' comparisons share: trainings that are kept once they are finished, and go on if they are not.

A comparison makes its list of :class:`Training`, lets :func:`comparing` run it, and writes a page of the results. It
may be stopped at any time and started again.
"""

import argparse
import fcntl
import functools
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config

from scopevit.analysis.machine import describe_machine, machine_in_words
from scopevit.utils.checkpoint import to_plain
from scopevit.utils.config import changed_settings
from scopevit.utils.cores import usable_cores
from scopevit.utils.errors import UserError
from scopevit.utils.files import require_writable_file, write_json, write_whole

ROOT = Path(__file__).resolve().parents[1]
STATE = 'training.json'
"""File of a training's folder, with its recipe, and with its result once it is finished."""
OUTPUT = 'output.txt'
MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Training:
    """One training by tools/train.py.

    Attributes:
        name: What it is called in messages.
        folder: Where all that it writes goes, and nothing else.
        config: Its config.
        facts: What its result begins with, with its ``seed``.
        options: Of the config, as for --cfg-options.
        words: Further words for tools/train.py.
        pretrained: The checkpoint that its backbone starts with.
        processes: How many tools/dist_train.sh starts; None: one, without it.
        is_tested: Whether its last checkpoint is tested, too; the metrics are then in test/metrics.json.
        keeps_checkpoints: Whether they stay when it is finished.
    """

    name: str
    folder: Path
    config: Path
    facts: dict
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    pretrained: str | None = None
    processes: int | None = None
    is_tested: bool = False
    keeps_checkpoints: bool = False

    @functools.cached_property
    def recipe(self) -> dict:
        """All settings that its result depends on beside the seed, as plain data."""
        if self.pretrained and not Path(self.pretrained).is_file():
            raise UserError(f'{self.name} starts with {self.pretrained}, which is missing')
        weights = hashlib.sha256(Path(self.pretrained).read_bytes()).hexdigest() if self.pretrained else None
        settings = _settings(self.config, self.config.stat().st_mtime_ns)
        options = dict(option.split('=', 1) for option in self.options)
        return dict(settings, **options, arguments=list(self.words), weights=weights, processes=self.processes)

    def result(self) -> dict | None:
        """What it measured, if it is finished.

        Raises:
            UserError: If the folder has anything of another recipe, finished or not.
        """
        file = self.folder / STATE
        if not file.exists() and not (self.folder.is_dir() and any(self.folder.iterdir())):
            return None
        state = json.loads(file.read_text()) if file.exists() else dict(recipe={})
        if state['recipe'] != self.recipe:
            others = sorted(changed_settings(state['recipe'], self.recipe))
            more = f' and {len(others) - MOST_NAMED} more' if len(others) > MOST_NAMED else ''
            raise UserError(
                f'{self.folder} is of another recipe ({", ".join(others[:MOST_NAMED])}{more}): choose another '
                '--work-dir, or remove that folder'
            )
        return state['result']

    def note(self, result: dict | None) -> None:
        """Write down of which recipe the folder is, and what was measured."""
        write_json(str(self.folder / STATE), dict(recipe=self.recipe, result=result))

    def command(self, step: str) -> list[str]:
        """The ``train`` step, which goes on where it stopped, or the ``test`` of its last checkpoint."""
        start = ['bash', f'tools/dist_{step}.sh'] if self.processes else [sys.executable, f'tools/{step}.py']
        checkpoint = [(self.folder / 'last_checkpoint').read_text()] if step == 'test' else []
        words = [*start, self.config, *checkpoint, *([self.processes] if self.processes else [])]
        if step == 'test':
            words += ['--work-dir', self.folder / 'test']
        else:
            words += ['--work-dir', self.folder, '--seed', self.facts['seed'], '--resume', *self.words]
            words += ['--pretrained', self.pretrained] if self.pretrained else []
        words += ['--cfg-options', *self.options] if self.options else []
        return list(map(str, words))


@functools.cache
def _settings(config: Path, changed: int) -> dict:
    """A config as plain data, without what depends on the machine; ``changed`` is when the file was."""
    settings = to_plain(Config.fromfile(config, import_custom_modules=False).to_dict())
    for split in ('train', 'val', 'test'):
        for key in ('num_workers', 'persistent_workers'):
            (settings.get(f'{split}_dataloader') or {}).pop(key, None)
    return settings


def finished(trainings: Iterable[Training]) -> list[dict]:
    """The results of those that are finished.

    Raises:
        UserError: If a folder is of another recipe.
    """
    return [result for result in (training.result() for training in trainings) if result is not None]


class Log(NamedTuple):
    """What a training logged, all its starts together: iterations by number, validations in their order."""

    steps: dict[int, dict]
    validations: list[dict]

    @property
    def seconds(self) -> float:
        """What all iterations took."""
        return statistics.mean(step['time'] for step in self.steps.values()) * max(self.steps)


def read_log(folder: Path) -> Log:
    """The log of a training in this folder."""
    log = Log({}, [])
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for text in file.read_text().splitlines():
            line = json.loads(text) if text.endswith('}') else {}  # the last line of one that was killed
            if 'loss' in line:
                log.steps[line['iter']] = line
            elif line:
                log.validations.append(line)
    return log


class _Run:
    """A training that runs, step by step."""

    def __init__(self, training: Training, environment: dict[str, str]) -> None:
        self.training, self.environment = training, environment
        self.steps = ['train', *['test'] * training.is_tested]
        self.machine = describe_machine(device())
        training.note(None)
        self.start()

    def start(self) -> None:
        """Start the next step."""
        command = self.training.command(self.steps.pop(0))
        with (self.training.folder / OUTPUT).open('a') as file:
            to_file = dict(stdout=file, stderr=subprocess.STDOUT)
            # close_fds=False: it inherits the lock of the work dir, and nothing else.
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, close_fds=False, **to_file)


@dataclass
class Trainer:
    """Runs trainings, some at a time.

    Attributes:
        measure: What a training that has ended measured, for its result; None if its log lacks that.
        says: What is printed of a result.
        jobs: Trainings at a time, on a share of the cores each.
        failures: What trainings failed with; the others go on.
    """

    measure: Callable[[Training], dict | None]
    says: Callable[[dict], str]
    jobs: int = 1
    failures: list[str] = field(default_factory=list)

    def run(self, trainings: Sequence[Training], after: Callable[[list[dict]], None] | None = None) -> list[dict]:
        """Run those that are not finished; a signal ends them, so that they can go on later.

        Args:
            after: Called with all results so far whenever a training is finished.

        Returns:
            The results, each of the facts of its training, what was measured, and the machine.

        Raises:
            UserError: If a folder is of another recipe, before anything is run.
        """
        # By folder: one that is asked for twice runs once.
        waiting = list({training.folder: training for training in trainings if training.result() is None}.values())
        running: list[_Run] = []
        told: list[int] = []
        # What is ignored, as SIGINT in the background of a script, stays so.
        heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, lambda number, frame: told.append(number)) for number in heard}
        try:
            while (waiting or running) and not told:
                while waiting and len(running) < self.jobs:
                    running.append(self._begin(waiting.pop(0)))
                time.sleep(0.2)
                for run in [run for run in running if run.process.poll() is not None and not told]:
                    if run.process.returncode == 0 and run.steps:
                        run.start()
                        continue
                    running.remove(run)
                    if self._end(run) and after is not None:
                        after(finished(trainings))
        finally:
            for run in running:
                run.process.terminate()  # it saves where it is
            for run in running:
                run.process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        if told:
            raise KeyboardInterrupt if told[0] == signal.SIGINT else SystemExit(128 + told[0])
        return finished(trainings)

    def _begin(self, training: Training) -> _Run:
        if self.jobs == 1:
            print(f'{training.name} ...', end=' ', flush=True)
        environment = {**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
        processes = self.jobs * (training.processes or 1)
        if processes > 1:
            environment.setdefault('OMP_NUM_THREADS', str(max(1, usable_cores() // processes)))
        return _Run(training, environment)

    def _end(self, run: _Run) -> bool:
        """Keep what an ended training measured; whether it has."""
        training, output = run.training, run.training.folder / OUTPUT
        measured = None if run.process.returncode else self.measure(training)
        named = '' if self.jobs == 1 else f'{training.name}: '
        if measured is None:
            lines = output.read_text(errors='replace').strip().splitlines()
            last = (
                lines[-1] if run.process.returncode and lines else 'its log lacks what is measured: remove the folder'
            )
            self.failures.append(f'{training.name}: the training failed; see {output} ({last})')
            print(f'{named}failed', flush=True)
            return False
        result = dict(**training.facts, **measured, machine=run.machine)
        training.note(result)
        if not training.keeps_checkpoints:
            for path in (*training.folder.glob('*.pth'), training.folder / 'last_checkpoint'):
                path.unlink(missing_ok=True)
        print(f'{named}{self.says(result)}', flush=True)
        return True


@contextmanager
def comparing(
    args: argparse.Namespace, measure: Callable[[Training], dict | None], says: Callable[[dict], str]
) -> Iterator[Trainer]:
    """A trainer for a comparison with the options ``work_dir`` and, if there are, ``table``, ``json`` and ``jobs``.

    Raises:
        UserError: If what is to be written cannot be, or another process trains there; at the end, if trainings failed.
    """
    for option in ('table', 'json'):
        if getattr(args, option, None):
            require_writable_file(getattr(args, option), f'--{option}')
    trainer = Trainer(measure, says, getattr(args, 'jobs', 1))
    with locked(args.work_dir):
        yield trainer
    if trainer.failures:
        raise UserError('; '.join(trainer.failures))


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
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
        except OSError:  # a file system without locks
            pass
        yield


def device() -> str:
    """On which trainings run."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def write_results(args: argparse.Namespace, page: str, results: object) -> None:
    """Write --table and --json, if they are given."""
    if args.table:
        write_whole(args.table, page)
    if args.json:
        write_json(args.json, results)


def spread(values: Sequence[float]) -> str:
    """Mean, and least and most of several values; nothing of none."""
    several = f' ({min(values):.1f}..{max(values):.1f})' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{several}' if values else ''


def machines_of(results: Iterable[dict]) -> str:
    """A sentence for each machine, with the days and commits of the trainings on it."""
    keys, sentences = ('device', 'cpu', 'cores', 'threads', 'torch'), []
    machines = [result['machine'] for result in results]
    for own in dict.fromkeys(tuple(machine[key] for key in keys) for machine in machines):
        same = [machine for machine in machines if tuple(machine[key] for key in keys) == own]
        days, commits = (sorted({machine[key] for machine in same if machine.get(key)}) for key in ('date', 'commit'))
        words = dict(same[0], date=' to '.join(dict.fromkeys((days[0], days[-1]))), commit=', '.join(commits))
        words.pop('load', None)
        sentences.append(machine_in_words(words))
    return '\n\n'.join(sentences)
