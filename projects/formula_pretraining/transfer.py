"""What pretrained weights are worth: the same short trainings from several starts, on small data sets.

    python projects/formula_pretraining/transfer.py --sources none formulas=CHECKPOINT --table transfer.md

A source is a name with a checkpoint of ScopeViT-xtiny, or a name alone, which starts at random. Every source, data set,
mode and seed is one training, with the same config. It may be stopped at any time: what is finished is not trained
again, what was begun goes on.
"""

import argparse
import contextlib
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT.parents[1]))  # for what projects share

from projects.trainings import (  # noqa: E402
    ROOT,
    Training,
    comparing,
    finished,
    machines_of,
    read_log,
    spread,
    write_results,
)
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402
from scopevit.utils.files import require_writable_folder  # noqa: E402

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
        'atss_scopevit-xtiny_fpn_1xb4-20e_crowns',
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


def training(source: str, checkpoint: str | None, data: str, mode: str, seed: int, work_dir: Path) -> Training:
    """One training: where it starts, on what, how, and with which seed."""
    task = SETS[data]
    return Training(
        name=f'{data}, {mode}, {source}, seed {seed}',
        folder=work_dir / data / mode / source / f'seed_{seed}',
        config=PROJECT / 'configs' / f'{task.config}.py',
        facts=dict(source=source, data=data, mode=mode, seed=seed),
        options=(*MODES[mode], *([f'{task.seeded}={seed}'] if task.seeded else [])),
        pretrained=checkpoint,
    )


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


def measure(ended: Training) -> dict | None:
    """The last metric in percent, and the seconds that iterations took."""
    task, log = SETS[ended.facts['data']], read_log(ended.folder)
    # mmdet leaves its metric out if no box was found at all.
    absent = 0 if task.metric.startswith('coco/') else None
    value = log.validations[-1].get(task.metric, absent) if log.validations else None
    return None if value is None or not log.steps else dict(value=value * task.scale, seconds=log.seconds)


def says(result: dict) -> str:
    return f'{SETS[result["data"]].title} {result["value"]:.1f} %, {result["seconds"] / 60:.1f} minutes'


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


def report(found: Sequence[dict], sources: Sequence[str], seeds: Sequence[int]) -> str:
    """The table with what it stands on."""
    named = ', '.join(map(str, seeds))
    of_seeds = f'Mean of seeds {named} (least..most)' if len(seeds) > 1 else f'Seed {named}'
    return (
        f'{table(found, sources, seeds)}\n\n{of_seeds}, after the last epoch; minutes of one training. '
        f'`python projects/formula_pretraining/transfer.py {shlex.join(sys.argv[1:])}`\n\n{machines_of(found)}\n'
    )


def parse_args() -> argparse.Namespace:
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
    return parser.parse_args()


def compare(args: argparse.Namespace) -> None:
    """Train all that is not finished, and write what is.

    Raises:
        UserError: If something is missing, or a folder is of another recipe; at the end, if trainings failed.
    """
    sources = dict(map(parse_source, args.sources))
    if len(sources) < len(args.sources):
        raise UserError('--sources has a name twice; each start needs a name of its own')
    require_writable_folder(args.work_dir)
    work_dir = Path(args.work_dir).resolve()
    args.json = args.json or str(work_dir / 'results.json')
    trainings = [
        training(source, checkpoint, data, mode, seed, work_dir)
        for data in args.sets
        for mode in args.modes
        for seed in args.seeds
        for source, checkpoint in sources.items()
    ]

    def write(found: list[dict]) -> None:
        write_results(args, report(found, list(sources), args.seeds), found)

    if not args.finished:
        check_sets(args.sets)
    with contextlib.nullcontext() if args.finished else comparing(args, measure, says) as trainer:
        if trainer is not None:
            print(f'{len(finished(trainings))} of {len(trainings)} trainings are finished', flush=True)
            trainer.run(trainings, after=write)
        found = finished(trainings)
        write(found)
        print(report(found, list(sources), args.seeds))


def main() -> None:
    with user_errors():
        compare(parse_args())


if __name__ == '__main__':
    main()
