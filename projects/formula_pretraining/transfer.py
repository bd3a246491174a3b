"""What pretrained weights are worth: the same short trainings from several starts, on small data sets.

    PYTHONPATH=. python projects/formula_pretraining/transfer.py --sources none formulas=CHECKPOINT --table transfer.md

A source is a name with a checkpoint of ScopeViT-xtiny, or a name alone, which starts at random. Every source, data set,
mode and seed is one training, with the same config. It may be stopped at any time: what is finished is not trained
again, what was begun goes on.
"""

import functools
import hashlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mmengine.config import Config

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.cores import usable_cores
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, require_writable_folder, whole_file, write_json

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
MODES = {'fine-tuned': (), 'frozen': ('model.backbone.frozen_stages=4',)}
"""How the backbone is used, with the config's options for it."""


@dataclass(frozen=True)
class Task:
    """A data set with its recipe.

    Attributes:
        config: Name of the config in configs/.
        metric: Its key in the log.
        title: What it is called.
        scale: What makes a percentage of it.
        data: What has to be there, from the repository's root.
        remedy: What makes it.
        seeded: Option of the config that is set to the seed: it chooses the images.
    """

    config: str
    metric: str
    title: str
    scale: float
    data: str
    remedy: str
    seeded: str = ''


_UNPACK = 'python tools/data/fashion_mnist.py unpack'
_FASHION = ('accuracy/top1', 'top-1', 1, 'data/fashion_mnist_subset', _UNPACK, 'train_dataloader.dataset.fold')
SETS = {
    'fashion-mnist-100': Task('scopevit-xtiny_1xb50-150e_fashion-mnist-100-32px', *_FASHION),
    'fashion-mnist-600': Task('scopevit-xtiny_1xb64-40e_fashion-mnist-600-32px', *_FASHION),
    'fashion-mnist-6000': Task('scopevit-xtiny_1xb64-6e_fashion-mnist-6000-32px', *_FASHION),
    'crowns': Task(
        'retinanet_scopevit-xtiny_fpn_1xb4-20e_crowns',
        *('coco/bbox_mAP_50', 'box AP50', 100, 'data/crowns/annotations/val.json'),
        'the first commands of projects/tree_crowns/README.md make it',
    ),
    'nuclei': Task(
        'scopevit-xtiny_fpn_1xb8-30e_nuclei-128x128',
        *('mIoU', 'mIoU', 1, 'data/nuclei/masks/val'),
        'the first commands of projects/formula_pretraining/make_nuclei.py make it',
    ),
    'scenes': Task(
        'scopevit-xtiny_fpn_1xb8-8e_scenes-480-128x128',
        *('mIoU', 'mIoU', 1, 'data/scenes/ade', 'python projects/scenes/make_scenes.py --only ade20k'),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training: where it starts, on what, how and with which seed."""

    source: str
    checkpoint: str | None
    data: str
    mode: str
    seed: int

    def folder(self, work_dir: Path) -> Path:
        """Where its logs and results are."""
        return work_dir / self.data / self.mode / self.source / f'seed_{self.seed}'

    @property
    def config(self) -> Path:
        return PROJECT / 'configs' / f'{SETS[self.data].config}.py'

    def command(self, folder: Path, options: Sequence[str] = ()) -> list[str]:
        """The training, which goes on where it stopped."""
        seeded = SETS[self.data].seeded
        chosen = [*MODES[self.mode], *([f'{seeded}={self.seed}'] if seeded else []), *options]
        return [
            *(sys.executable, str(ROOT / 'tools' / 'train.py'), str(self.config)),
            *('--work-dir', str(folder), '--seed', str(self.seed), '--resume'),
            *(['--pretrained', self.checkpoint] if self.checkpoint else []),
            *(['--cfg-options', *chosen] if chosen else []),
        ]

    def identity(self, options: Sequence[str] = ()) -> dict:
        """What its result depends on."""
        weights = _digest(Path(self.checkpoint).read_bytes()) if self.checkpoint else ''
        return dict(weights=weights, recipe=_digest(f'{_recipe(self.config)} {MODES[self.mode]} {options}'.encode()))


@functools.cache
def _recipe(config: Path) -> str:
    return json.dumps(Config.fromfile(config, import_custom_modules=False).to_dict(), sort_keys=True, default=str)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def parse_source(text: str) -> tuple[str, str | None]:
    """Name and checkpoint of ``NAME=CHECKPOINT`` or ``NAME``.

    Raises:
        UserError: If the name cannot be a folder's, or there is no such file.
    """
    name, _, checkpoint = text.partition('=')
    if not name or os.path.basename(name) != name or name.startswith('.'):
        raise UserError(f'--sources takes NAME=CHECKPOINT, or NAME for a random start, but got {text!r}')
    if '=' in text and not os.path.isfile(checkpoint):
        raise UserError(f'--sources {name}: {checkpoint or "the checkpoint"} does not exist')
    return name, os.path.abspath(checkpoint) if checkpoint else None


def check_sets(names: Sequence[str]) -> None:
    """Make sure that the data are there.

    Raises:
        UserError: If not; it says how to make them.
    """
    missing = {SETS[name].data: SETS[name].remedy for name in names if not (ROOT / SETS[name].data).exists()}
    if missing:
        told = '; '.join(f'{data} does not exist: {remedy}' for data, remedy in missing.items())
        raise UserError(f'{told}; or choose other --sets')


def read_state(folder: Path, identity: dict) -> dict | None:
    """The result of a cell, if it is finished.

    Raises:
        UserError: If the folder holds a training from other weights or with another recipe.
    """
    path = folder / 'cell.json'
    if not path.exists():
        return None
    state = json.loads(path.read_text())
    other = [key for key, value in identity.items() if state['identity'].get(key) != value]
    if other:
        raise UserError(f'{folder} is of other {" and ".join(other)}: choose another --work-dir, or remove that folder')
    return state['result']


def log_lines(folder: Path) -> Iterator[dict]:
    """What the training logged, in the order of its starts."""
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            if line.endswith('}'):  # else a kill has cut it
                yield json.loads(line)


def collect(cell: Cell, folder: Path) -> dict:
    """The result of a training that has ended: its last metric in percent, and the seconds that iterations took.

    Raises:
        UserError: If the log has none.
    """
    task = SETS[cell.data]
    times: dict[int, float] = {}
    value = None
    for line in log_lines(folder):
        if 'loss' in line:
            times[line['iter']] = line['time']
        else:  # of a validation, in which mmdet leaves its metric out if no box was found at all
            value = line.get(task.metric, 0 if task.metric.startswith('coco/') else None)
    if value is None or not times:
        raise UserError(f'the log in {folder} has no {task.metric}: remove that folder and start again')
    return dict(value=value * task.scale, seconds=statistics.mean(times.values()) * max(times))


def run(cells: Sequence[Cell], work_dir: Path, jobs: int = 1, options: Sequence[str] = ()) -> None:
    """Train all cells that are not finished, some at a time.

    Args:
        options: For every config, as for --cfg-options.

    Raises:
        UserError: If a training fails; it names its output.
    """
    waiting = [cell for cell in cells if read_state(cell.folder(work_dir), cell.identity(options)) is None]
    print(f'{len(cells) - len(waiting)} of {len(cells)} trainings are finished', flush=True)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    environment.setdefault('OMP_NUM_THREADS', str(max(1, usable_cores() // jobs)))
    running: dict[subprocess.Popen, Cell] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running[_start(cell, cell.folder(work_dir), environment, options)] = cell
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                cell = running.pop(process)
                _finish(cell, cell.folder(work_dir), process.returncode, options)
    finally:
        for process in running:
            process.terminate()  # it saves where it is
        for process in running:
            process.wait()


def _start(cell: Cell, folder: Path, environment: dict, options: Sequence[str]) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(str(folder / 'cell.json'), dict(identity=cell.identity(options), result=None))
    with open(folder / 'output.txt', 'a') as output:
        return subprocess.Popen(
            cell.command(folder, options), cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


def _finish(cell: Cell, folder: Path, status: int, options: Sequence[str]) -> None:
    if status:
        last = (folder / 'output.txt').read_text(errors='replace').strip().splitlines()[-1:]
        raise UserError(f'a training failed ({" ".join(last)}); all it said is in {folder / "output.txt"}')
    result = collect(cell, folder)
    write_json(str(folder / 'cell.json'), dict(identity=cell.identity(options), result=result))
    for path in folder.glob('*.pth'):  # a hundred trainings would fill a disk
        path.unlink()
    title = SETS[cell.data].title
    told = f'{title} {result["value"]:.1f} %, {result["seconds"] / 60:.1f} minutes'
    print(f'{cell.data}, {cell.mode}, {cell.source}, seed {cell.seed}: {told}', flush=True)


def results(cells: Sequence[Cell], work_dir: Path, options: Sequence[str] = ()) -> list[dict]:
    """Those of the cells that are finished."""
    found = []
    for cell in cells:
        result = read_state(cell.folder(work_dir), cell.identity(options))
        if result is not None:
            found.append(dict(source=cell.source, data=cell.data, mode=cell.mode, seed=cell.seed, **result))
    return found


def table(found: Sequence[dict], sources: Sequence[str], seeds: Sequence[int]) -> str:
    """Results in Markdown: mean over the seeds, and least and most of them; of how many, if some are missing."""
    lines = [
        f'| Data | Backbone | Metric (%) | {" | ".join(sources)} | Minutes |',
        f'| --- | --- | --- | {"---: | " * len(sources)}---: |',
    ]
    for data, task in SETS.items():
        for mode in MODES:
            row = [result for result in found if (result['data'], result['mode']) == (data, mode)]
            if not row:
                continue
            shown = []
            for source in sources:
                values = [result['value'] for result in row if result['source'] == source]
                are_missing = 0 < len(values) < len(seeds)
                shown.append(spread(values) + (f', {len(values)} of {len(seeds)} seeds' if are_missing else ''))
            minutes = statistics.mean(result['seconds'] for result in row) / 60
            lines.append(f'| {data} | {mode} | {task.title} | {" | ".join(shown)} | {minutes:.1f} |')
    return '\n'.join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, least and most of values; a single one alone."""
    if len(values) < 2:
        return f'{values[0]:.1f}' if values else ''
    return f'{statistics.mean(values):.1f} ({min(values):.1f}..{max(values):.1f})'


def report(found: Sequence[dict], sources: Sequence[str], seeds: Sequence[int]) -> str:
    """The table with what it stands on."""
    named = ', '.join(map(str, seeds))
    of_seeds = f'Mean of seeds {named} (least..most)' if len(seeds) > 1 else f'Seed {named}'
    return (
        f'{table(found, sources, seeds)}\n\n{of_seeds}, after the last epoch; minutes of one training. '
        f'{date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}).\n'
    )


def main() -> None:
    parser = tool_parser(__doc__)
    sources_help = 'starts: NAME=CHECKPOINT, or NAME alone for a random one (default: none)'
    parser.add_argument('--sources', nargs='+', default=['none'], metavar='SOURCE', help=sources_help)
    for name, known in (('sets', SETS), ('modes', MODES)):
        listed = f'{", ".join(known)} (default: all)'
        parser.add_argument(
            f'--{name}', nargs='+', choices=known, default=list(known), metavar=name[:-1].upper(), help=listed
        )
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='random seeds (default: 0 1 2)'
    )
    parser.add_argument(
        '--jobs', type=positive, default=1, metavar='N', help='trainings at a time (default: %(default)s)'
    )
    add_arguments(parser, '--work-dir', default='work_dirs/formula_transfer')
    add_arguments(parser, '--json', help='write all results (default: results.json in the work dir)')
    add_arguments(parser, '--table')
    parser.add_argument('--finished', action='store_true', help='train nothing, show what is finished')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by which the trainings are stopped, too
    with user_errors():
        sources = dict(map(parse_source, args.sources))
        if len(sources) < len(args.sources):
            raise UserError('--sources has a name twice; each start needs a name of its own')
        require_writable_folder(args.work_dir)
        work_dir = Path(args.work_dir).resolve()
        json_file = args.json or str(work_dir / 'results.json')
        require_writable_file(json_file, '--json')
        if args.table:
            require_writable_file(args.table, '--table')
        cells = [
            Cell(source, checkpoint, data, mode, seed)
            for data in args.sets
            for mode in args.modes
            for seed in args.seeds
            for source, checkpoint in sources.items()
        ]
        if not args.finished:
            check_sets(args.sets)
            run(cells, work_dir, args.jobs)
        found = results(cells, work_dir)
        write_json(json_file, found)
        text = report(found, list(sources), args.seeds)
        print(text)
        if args.table:
            with whole_file(args.table) as temporary:
                Path(temporary).write_text(text)


if __name__ == '__main__':
    main()
