"""Compare bodies that ScopeViT estimates with baselines, on held-out bodies and with several seeds.

    python projects/human_mesh/compare.py --table projects/human_mesh/comparison.md

The rows: two baselines, bodies that are the same for every image, and three trainings of tools/dist_train.sh that
differ in a line or two: the head on a backbone that stays as it was initialised at random, COCO's keypoints as the only
labels, all labels. Run the command again after an interruption: what is finished is kept, a training that was broken
off goes on. A folder of other settings is refused.
The table is written after each training.
"""

import argparse
import shlex
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the projects

from projects.human_mesh.bodies import CapsuleBody  # noqa: E402
from projects.human_mesh.bodies.poses import mean_pose  # noqa: E402
from projects.human_mesh.bodies.skeleton import SHAPES  # noqa: E402
from projects.human_mesh.data import SPLITS  # noqa: E402
from projects.human_mesh.metrics import errors, from_root  # noqa: E402
from projects.human_mesh.synthetic import draw_parameters, numbers  # noqa: E402
from projects.trainings import Training, comparing, finished, machines_of, read_log, spread, write_results  # noqa: E402
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import user_errors  # noqa: E402

METRICS = ('MPJPE', 'PA-MPJPE', 'PVE')
PROJECT = Path(__file__).resolve().parent
CONFIG = 'hmr_scopevit-xtiny_2xb32-6e_bodies{}-64x64.py'
ROWS = {
    'frozen': ('random backbone, frozen', CONFIG.format(''), ('model.backbone.frozen_stages=4',)),
    'keypoints': ("COCO's keypoints alone", CONFIG.format('-keypoints'), ()),
    'all': ('all labels', CONFIG.format(''), ()),
}
"""What a training is called, its config, and options of that."""


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


def training(name: str, seed: int, args: argparse.Namespace) -> Training:
    """A row's training with this seed."""
    title, config, options = ROWS[name]
    return Training(
        name=f'{title}, seed {seed}',
        folder=Path(args.work_dir).resolve() / name / f'seed_{seed}',
        config=PROJECT / 'configs' / config,
        facts=dict(row=name, seed=seed),
        options=(*options, *sizes(args)),
        processes=args.processes,
        keeps_checkpoints=True,
    )


def measured(folder: Path, epochs: int) -> dict | None:
    """The metrics after the last epoch in a training's log, and the seconds that all its iterations took."""
    log = read_log(folder)
    ends = [line for line in log.validations if line.get('step') == epochs and 'body/MPJPE' in line]
    return dict({name: ends[-1][f'body/{name}'] for name in METRICS}, seconds=log.seconds) if ends else None


def table(results: list[dict], of_constants: dict[str, dict[str, float]]) -> str:
    """What was measured, in Markdown."""
    lines = [f'| Body | {" | ".join(f"{name} (mm)" for name in METRICS)} | Seeds | Minutes |']
    lines.append('| --- | ---: | ---: | ---: | ---: | ---: |')
    for title, found in of_constants.items():
        lines.append(f'| {title} | {" | ".join(f"{found[name]:.1f}" for name in METRICS)} |  |  |')
    for name, (title, *_) in ROWS.items():
        own = [result for result in results if result['row'] == name]
        if own:
            columns = ' | '.join(spread([result[metric] for result in own]) for metric in METRICS)
            minutes = statistics.mean(result['seconds'] for result in own) / 60
            lines.append(f'| {title} | {columns} | {len(own)} | {minutes:.1f} |')
    return '\n'.join(lines) + '\n'


def page(results: list[dict], of_constants: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    """The table with what it stands on."""
    return (
        f'{table(results, of_constants)}\n'
        f'{args.count:,} training images, {args.epochs} epochs, {args.processes} processes; {args.val_count:,} '
        'held-out bodies, after the last epoch; mean (least..most) over seeds from 0 on. '
        f'`python projects/human_mesh/compare.py {shlex.join(sys.argv[1:])}`\n\n{machines_of(results)}\n'
    )


def compare(args: argparse.Namespace) -> None:
    """Do all trainings, seed by seed.

    Raises:
        UserError: If a folder is of another recipe; at the end, if trainings failed.
    """

    def write(results: list[dict]) -> None:
        write_results(args, page(results, of_constants, args), dict(constants=of_constants, results=results))

    trainings = [training(name, seed, args) for seed in range(args.seeds) for name in args.rows]
    says = 'MPJPE {MPJPE:.1f} mm, {minutes:.1f} minutes'
    with comparing(
        args,
        lambda ended: measured(ended.folder, args.epochs),
        lambda result: says.format(minutes=result['seconds'] / 60, **result),
    ) as trainer:
        finished(trainings)  # those of another recipe are refused before anything is computed
        of_constants = constants(args.val_count)
        print(table([], of_constants), flush=True)
        results = trainer.run(trainings, after=write)
        write(results)
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
    with user_errors():
        compare(parse_args())


if __name__ == '__main__':
    main()
