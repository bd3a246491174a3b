"""Compare bodies that ScopeViT estimates with baselines, on held-out bodies and with several seeds.

    python projects/human_mesh/compare.py --table projects/human_mesh/comparison.md

The rows: two baselines, bodies that are the same for every image, and three trainings of tools/dist_train.sh that
differ in a line or two: the head on a backbone that stays as it was initialised at random, COCO's keypoints as the only
labels, all labels. Run the command again after an interruption: what is finished is kept, a training that was broken
off goes on. A folder of other settings is refused.
The table is written after each training.
"""

import argparse
import hashlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the projects

from projects.formula_pretraining.transfer import log_lines  # noqa: E402
from projects.human_mesh.bodies import CapsuleBody  # noqa: E402
from projects.human_mesh.bodies.poses import mean_pose  # noqa: E402
from projects.human_mesh.bodies.skeleton import SHAPES  # noqa: E402
from projects.human_mesh.data import SPLITS  # noqa: E402
from projects.human_mesh.metrics import errors, from_root  # noqa: E402
from projects.human_mesh.synthetic import draw_parameters, numbers  # noqa: E402
from scopevit.analysis.machine import describe_machine, machine_in_words  # noqa: E402
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.cores import usable_cores  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402
from scopevit.utils.files import require_writable_file, write_json, write_whole  # noqa: E402

METRICS = ('MPJPE', 'PA-MPJPE', 'PVE')
RECIPE = 'recipe.txt'  # in the folder of a training
CONFIG = 'hmr_scopevit-xtiny_2xb32-6e_bodies{}-64x64.py'


@dataclass(frozen=True)
class Row:
    """A training of the comparison.

    Attributes:
        title: What it is called.
        config: Its config.
        options: Of the config, as for --cfg-options.
    """

    title: str
    config: Path
    options: tuple[str, ...] = ()

    def recipe(self, args: argparse.Namespace) -> str:
        """A number for all that its result depends on but the seed."""
        cfg = Config.fromfile(self.config, import_custom_modules=False).to_dict()
        settings = (cfg, self.options, *sizes(args), args.processes)
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


ROWS = {
    'frozen': Row(
        'random backbone, frozen',
        Path(__file__).parent / 'configs' / CONFIG.format(''),
        ('model.backbone.frozen_stages=4',),
    ),
    'keypoints': Row("COCO's keypoints alone", Path(__file__).parent / 'configs' / CONFIG.format('-keypoints')),
    'all': Row('all labels', Path(__file__).parent / 'configs' / CONFIG.format('')),
}


def sizes(args: argparse.Namespace) -> tuple[str, ...]:
    """Options that make every training smaller or larger."""
    return (
        f'train_dataloader.dataset.count={args.count}',
        f'val_dataloader.dataset.count={args.val_count}',
        f'train_cfg.max_epochs={args.epochs}',
        f'train_cfg.val_interval={args.epochs}',
        f'param_scheduler.1.end={args.epochs}',
    )


def drawn_bodies(split: str, count: int, body: CapsuleBody) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices (count, V, 3) and joints (count, 24, 3) of a split of the data, without their images."""
    drawn = [draw_parameters(numbers(0, SPLITS.index(split), i)) for i in range(count)]
    rotations, shapes = map(torch.stack, zip(*drawn))
    with torch.no_grad():
        parts = [body(rotations[i : i + 200], shapes[i : i + 200]) for i in range(0, count, 200)]
    vertices, joints = map(torch.cat, zip(*parts))
    return vertices, joints


def constants(val_count: int, train_count: int = 2000) -> dict[str, dict[str, float]]:
    """The errors of two bodies that are the same for every image: mean pose and shape, and the mean of all points."""
    body = CapsuleBody()
    ground_truth = drawn_bodies('val', val_count, body)
    with torch.no_grad():
        mean_body = body(mean_pose()[None], torch.zeros(1, SHAPES))
    vertices, joints = drawn_bodies('train', train_count, body)
    mean_points = [from_root(points, joints).mean(dim=0, keepdim=True) for points in (vertices, joints)]
    found = {}
    for title, constant in (('mean pose and shape', mean_body), ('mean vertices and joints', mean_points)):
        same = (points.expand(val_count, -1, -1) for points in constant)
        found[title] = {name: value.mean().item() for name, value in errors(*same, *ground_truth).items()}
    return found


def folder_of(name: str, seed: int, args: argparse.Namespace) -> Path:
    return Path(args.work_dir) / name / f'seed_{seed}'


def require_same_recipe(folder: Path, recipe: str) -> None:
    """Raises UserError if a training's folder has anything of another recipe, finished or not."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    file = folder / RECIPE
    if not file.exists() or file.read_text() != recipe:
        raise UserError(f'{folder} is of another recipe: choose another --work-dir, or remove that folder')


def measured(folder: Path, epochs: int) -> dict | None:
    """The metrics after the last epoch in a training's log, and the seconds that all its iterations took."""
    metrics, times = None, {}
    for line in log_lines(folder):
        if 'loss' in line:
            times[line['iter']] = line['time']
        elif line.get('step') == epochs and 'body/MPJPE' in line:
            metrics = {name: line[f'body/{name}'] for name in METRICS}
    return metrics and dict(metrics, seconds=statistics.mean(times.values()) * max(times))


def train(name: str, seed: int, args: argparse.Namespace) -> dict:
    """Run a training to its end, unless that was done before; returns what was measured.

    Raises:
        UserError: If it fails, or its folder is of another recipe.
    """
    row, folder = ROWS[name], folder_of(name, seed, args)
    recipe = row.recipe(args)
    require_same_recipe(folder, recipe)
    if (folder / 'result.json').exists():
        return json.loads((folder / 'result.json').read_text())
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(str(folder / RECIPE), recipe)
    log = folder / 'output.txt'
    print(f'{row.title}, seed {seed} ...', end=' ', flush=True)
    machine = describe_machine('cuda' if torch.cuda.is_available() else 'cpu')
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(row.config), str(args.processes)]
    command += ['--work-dir', str(folder), '--seed', str(seed), '--resume', '--cfg-options', *row.options, *sizes(args)]
    environment = {**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
    environment.setdefault('OMP_NUM_THREADS', str(max(1, usable_cores() // args.processes)))
    with log.open('a') as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        finally:
            process.terminate()  # it saves where it is, if it still runs
            process.wait()
    found = measured(folder, args.epochs)
    if status or found is None:
        print('failed', flush=True)
        raise UserError(f'{row.title}, seed {seed}: the training failed; see {log}')
    result = dict(row=name, seed=seed, recipe=recipe, machine=machine, **found)
    write_json(str(folder / 'result.json'), result)
    print(f'MPJPE {found["MPJPE"]:.1f} mm, {found["seconds"] / 60:.1f} minutes', flush=True)
    return result


def spread(values: list[float]) -> str:
    """Mean, and least and most of several."""
    several = f' ({min(values):.1f}..{max(values):.1f})' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{several}'


def table(results: list[dict], of_constants: dict[str, dict[str, float]]) -> str:
    """What was measured, in Markdown."""
    lines = [f'| Body | {" | ".join(f"{name} (mm)" for name in METRICS)} | Seeds | Minutes |']
    lines.append('| --- | ---: | ---: | ---: | ---: | ---: |')
    for title, found in of_constants.items():
        lines.append(f'| {title} | {" | ".join(f"{found[name]:.1f}" for name in METRICS)} |  |  |')
    for name, row in ROWS.items():
        own = [result for result in results if result['row'] == name]
        if own:
            columns = ' | '.join(spread([result[metric] for result in own]) for metric in METRICS)
            minutes = statistics.mean(result['seconds'] for result in own) / 60
            lines.append(f'| {row.title} | {columns} | {len(own)} | {minutes:.1f} |')
    return '\n'.join(lines) + '\n'


def page(results: list[dict], of_constants: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    """The table with what it stands on."""
    machines = dict.fromkeys(
        machine_in_words({key: value for key, value in result['machine'].items() if key != 'load'})
        for result in results
    )
    return (
        f'{table(results, of_constants)}\n'
        f'{args.count:,} training images, {args.epochs} epochs, {args.processes} processes; {args.val_count:,} '
        'held-out bodies, after the last epoch; mean (least..most) over seeds from 0 on. '
        f'`python projects/human_mesh/compare.py {shlex.join(sys.argv[1:])}`\n\n' + '\n\n'.join(machines) + '\n'
    )


def compare(args: argparse.Namespace) -> None:
    """Do all trainings, seed by seed.

    Raises:
        UserError: If a training fails, or a folder is of another recipe.
    """
    for option in ('table', 'json'):
        if getattr(args, option):
            require_writable_file(getattr(args, option), f'--{option}')
    trainings = [(name, seed) for seed in range(args.seeds) for name in args.rows]
    recipes = {name: ROWS[name].recipe(args) for name in args.rows}
    for name, seed in trainings:  # before hours of the others
        require_same_recipe(folder_of(name, seed, args), recipes[name])
    of_constants = constants(args.val_count)
    print(table([], of_constants), flush=True)
    results = []
    for name, seed in trainings:
        results.append(train(name, seed, args))
        if args.table:
            write_whole(args.table, page(results, of_constants, args))
        if args.json:
            write_json(args.json, dict(constants=of_constants, results=results))
    print(table(results, of_constants))


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    listed = f'of {", ".join(ROWS)} (default: all)'
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS), metavar='NAME', help=listed)
    numbers_of = dict(type=positive, metavar='N')
    parser.add_argument('--seeds', default=3, help='how many, from 0 on (default: %(default)s)', **numbers_of)
    parser.add_argument('--epochs', default=6, help='(default: %(default)s)', **numbers_of)
    add_arguments(parser, '--count', default=12000, help='images to train on (default: %(default)s)')
    parser.add_argument('--val-count', default=1000, help='held-out images (default: %(default)s)', **numbers_of)
    parser.add_argument('--processes', default=2, help='of a training (default: %(default)s)', **numbers_of)
    add_arguments(parser, '--work-dir', default='work_dirs/human_mesh')
    add_arguments(parser, '--table', '--json')
    return parser.parse_args(words)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and with this process the training that it runs
    with user_errors():
        compare(parse_args())


if __name__ == '__main__':
    main()
