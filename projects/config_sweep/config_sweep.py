"""Run every benchmark config for a moment: two iterations, validation, and two more after a resume.

    python projects/config_sweep/config_sweep.py --only detection
    python projects/config_sweep/config_sweep.py --table projects/config_sweep/README.md
    python projects/config_sweep/config_sweep.py --configs 'projects/imagenet_table/configs/*.py'

The images are synthetic scenes where the configs expect ImageNet, COCO and ADE20K. Nothing of a
config is changed but its length, the number of images and of loader processes; models and images
have their full size, so each config takes minutes on a CPU. Results are added to a file, one
line each; what is in it already is not run again.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from datetime import date
from glob import glob
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the generator of scenes

from projects.scenes.generator import write_ade20k, write_coco, write_imagenet  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402

TRAIN = ROOT / 'tools' / 'train.py'
DATA = {
    'imagenet': write_imagenet,
    'coco': write_coco,
    'ade/ADEChallengeData2016': write_ade20k,
}
BATCH = 2
OUR_CONFIGS = 'configs/*/*.py'
# What is said below the date where those are swept.
NOT_AMONG_OURS = [
    'The configs in `configs/classification/variants` train nothing, so that they are not swept. That they test',
    'a checkpoint, on small images in the layouts of ImageNetV2, -A, -R, -Sketch and -C, is in',
    '[test_imagenet_variants.py](../../tests/datasets/test_imagenet_variants.py); none of these data was at hand.',
    '',
]


def benchmarks(pattern: str) -> list:
    """The configs for ImageNet, COCO and ADE20K among those of a pattern, relative to the repository."""
    paths = (Path(path) for path in glob(str(ROOT / pattern)))
    paths = (path for path in paths if ROOT in path.parents and re.search('in1k|coco|ade20k', path.stem))
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def overrides(cfg: Config, rounds: int) -> list:
    """Options for two iterations a round, with validation and a checkpoint after each."""
    options = [
        f'train_dataloader.batch_size={BATCH}',
        f'train_dataloader.dataset.indices={2 * BATCH}',
        'val_dataloader.dataset.indices=2',
    ]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options += [f'{loader}.num_workers=0', f'{loader}.persistent_workers=False']
    by_iterations = 'max_iters' in cfg.train_cfg
    length, interval = ('max_iters', 2) if by_iterations else ('max_epochs', 1)
    options += [
        f'train_cfg.{length}={rounds * interval}',
        f'train_cfg.val_interval={interval}',
        f'default_hooks.checkpoint.interval={interval}',
        'default_hooks.logger.interval=1',
    ]
    return options


def run(config: str, folder: Path) -> dict:
    """Train, validate, resume; returns what happened, with the end of the log if it failed."""
    cfg = Config.fromfile(ROOT / config, import_custom_modules=False)
    work_dir = folder / 'work_dirs' / Path(config).stem
    row = dict(config=config, status='works', date=str(date.today()), seconds=[], losses=[], validated=0)
    for rounds, resume in ((1, []), (2, ['--resume'])):
        words = [TRAIN, ROOT / config, '--work-dir', work_dir, *resume, '--cfg-options', *overrides(cfg, rounds)]
        start = time.time()
        result = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=folder,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        row['seconds'].append(round(time.time() - start))
        row['losses'] += [float(loss) for loss in re.findall(r'\(train\).*? loss: ([\d.]+|nan)', result.stdout)]
        row['validated'] += len(re.findall(r'(?:Epoch|Iter)\(val\)', result.stdout)) > 0
        if resume and not re.search(r'goes on from (epoch \d, )?iteration 2\b', result.stdout):
            row.update(status='did not resume', log=result.stdout[-2000:])
        if result.returncode:
            row.update(status=f'failed with {result.returncode}', log=result.stdout[-2000:])
            return row
    if len(row['losses']) != 4 or row['validated'] != 2 or any(loss != loss for loss in row['losses']):
        row['status'] = 'ran, but not as it should'
    for checkpoint in work_dir.glob('*.pth'):
        checkpoint.unlink()
    return row


def write_table(rows: list, path: str, remarks: list[str]) -> None:
    lines = [
        '# Every benchmark config, run for a moment',
        '',
        'Two iterations at full size, validation, a resume, two more iterations and validation, on synthetic',
        'scenes laid out as ImageNet, COCO and ADE20K are. Only lengths, numbers of images and loader processes were',
        'overridden.',
        '',
        f'    {shlex.join(["python", "projects/config_sweep/config_sweep.py", *sys.argv[1:]])}',
        '',
        f'{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}. '
        f'{sum(row["status"] == "works" for row in rows)} of {len(rows)} work.',
        '',
        *remarks,
        '| Config | Date | Result | Losses | Seconds |',
        '| --- | --- | --- | --- | --- |',
    ]
    for row in rows:
        losses = ', '.join(f'{loss:.3g}' for loss in row['losses'])
        cells = row['config'], row['date'], row['status'], losses, ' + '.join(map(str, row['seconds']))
        lines.append(f'| {" | ".join(cells)} |')
    Path(path).write_text('\n'.join(lines) + '\n')


def sweep(args: argparse.Namespace) -> None:
    known = benchmarks(args.configs)
    configs = [config for config in known if args.only in config]
    if not known:
        raise UserError(f"--configs '{args.configs}' matches no config for ImageNet, COCO or ADE20K in {ROOT}")
    if not configs:
        raise UserError(f"--only '{args.only}' matches none of the {len(known)} benchmark configs in {args.configs}")
    folder = Path(args.work_dir).resolve()
    for name, write in DATA.items():
        write(str(folder / 'data' / name), 0, 8, 4)
    results = folder / 'results.jsonl'
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {row['config']: row for row in rows if row['status'] == 'works' or not args.again}
    todo = [config for config in configs if config not in done]
    print(f'{len(configs)} configs, {len(configs) - len(todo)} of them done before')
    for number, config in enumerate(todo, 1):
        print(f'[{number}/{len(todo)}] {config}', end=' ', flush=True)
        row = done[config] = run(config, folder)
        print(f'{row["status"]}, {sum(row["seconds"])} s', flush=True)
        with open(results, 'a') as file:
            file.write(json.dumps(row) + '\n')
    if args.table:
        missing = len(set(known) - set(done))
        if missing:
            raise UserError(f'{missing} configs were not run yet; the table is written when all were')
        remarks = NOT_AMONG_OURS if args.configs == OUR_CONFIGS else []
        write_table([done[config] for config in known], args.table, remarks)
    failed = [config for config in configs if done[config]['status'] != 'works']
    if failed:
        raise UserError(f'{len(failed)} of {len(configs)} do not work: {", ".join(failed)}; see {results}')


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--configs', default=OUR_CONFIGS, metavar='PATTERN', help='where configs are (default: %(default)s)'
    )
    parser.add_argument('--only', default='', metavar='TEXT', help='configs whose path holds this text (default: all)')
    parser.add_argument('--again', action='store_true', help='run again what did not work')
    add_arguments(parser, '--table', help='write a table of all results, in Markdown (default: none)')
    add_arguments(parser, '--work-dir', default='work_dirs/config_sweep')
    args = parser.parse_args()
    with user_errors():
        sweep(args)


if __name__ == '__main__':
    main()
