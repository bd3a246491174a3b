"""Draw losses, learning rates and validation metrics of one run, or of several over each other.

    python tools/visualization/plot_curves.py work_dirs/x --out curves.png
    python tools/visualization/plot_curves.py work_dirs/x work_dirs/y --metrics mIoU --out compared.png

Each metric of validation has a part of its own.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, save_figure

NOT_PLOTTED = ('step', 'epoch', 'iter', 'time', 'data_time', 'memory')


@dataclass
class Run:
    """What MMEngine logged, over all (resumed) runs of a work dir.

    Attributes:
        train: Losses and the like, by name and iteration.
        val: Metrics, by name and step.
        iterations: After which iteration each step of ``val`` was.
        by_epoch: Whether these steps are epochs.
    """

    train: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    val: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    iterations: dict[int, int] = field(default_factory=dict)
    by_epoch: bool = False


def read_run(work_dir: str) -> Run:
    """Read the logs of a work dir.

    Raises:
        UserError: If nothing was logged there.
    """
    run, last = Run(), {}
    # The folders of the runs are named by their start, so later ones win.
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text(errors='replace').splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the last line of a run that was killed
                continue
            if not isinstance(entry, dict):
                continue
            entry = {key: value for key, value in entry.items() if isinstance(value, (int, float))}
            step, target = entry.get('step', 0), run.val
            if 'loss' in entry:
                target, last = run.train, entry
                step = entry.get('iter', step)
            elif last:
                # A validation's step is an epoch or an iteration; the training's entry before it has both.
                run.by_epoch = step == last.get('epoch') and step < last.get('iter', step + 1)
                run.iterations[step] = last.get('iter', step) if run.by_epoch else step
            for key, value in entry.items():
                if key not in NOT_PLOTTED:
                    target[key][step] = value
    if not run.train:
        raise UserError(f'{work_dir} has no training log (<time>/vis_data/scalars.json)')
    return run


def shortest_names(paths: list[str]) -> list[str]:
    """What the paths of several folders differ by: their parts without those that all begin or end with."""
    parts = [Path(path).absolute().parts for path in paths]
    begin = end = 0
    while len({part[: begin + 1] for part in parts}) == 1 and all(len(part) > begin + 1 for part in parts):
        begin += 1
    while len({part[len(part) - end - 1 :] for part in parts}) == 1 and all(len(p) > begin + end + 1 for p in parts):
        end += 1
    return ['/'.join(part[begin : len(part) - end]) for part in parts]


def plot(axes: Any, points: dict[int, float], label: str, **style: object) -> None:
    steps = sorted(points)
    (line,) = axes.plot(steps, [points[step] for step in steps], label=label, **style)
    if 'marker' in style:
        place = dict(xytext=(0, 6), textcoords='offset points', fontsize=8, color=line.get_color())
        axes.annotate(f'{points[steps[-1]]:.4g}', (steps[-1], points[steps[-1]]), **place)


def draw(runs: dict[str, Run], metrics: list[str], path: str) -> None:
    """Draw runs, by their names: a part for losses, one for learning rates and one for each metric.

    Raises:
        UserError: If a name in ``metrics`` is part of none that was logged, or the figure cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    logged = list(dict.fromkeys(key for run in runs.values() for key in run.val))
    for name in metrics:
        if not any(name in key for key in logged):
            raise UserError(f'no metric is called {name}; there are {", ".join(logged) or "none"}')
    chosen = [key for key in logged if not metrics or any(name in key for name in metrics)]
    parts = 2 + len(chosen)
    cols = 4 if parts % 4 == 0 else 3
    rows = -(-parts // cols)
    figure = Figure(figsize=(4.5 * cols, 3.7 * rows), layout='constrained')
    losses, rates, *others = figure.subplots(rows, cols, squeeze=False).flat
    is_alone = len(runs) == 1
    by_epoch = all(run.by_epoch for run in runs.values() if run.val)
    for name, run in runs.items():
        for key, points in run.train.items():
            if key == 'loss' or ('loss' in key and is_alone):
                plot(losses, points, key if is_alone else name)
        if 'lr' in run.train:
            plot(rates, run.train['lr'], name)
        for axes, key in zip(others, chosen):
            points = run.val.get(key, {})
            if points:
                # Of runs that count differently all are drawn by iterations.
                points = points if by_epoch else {run.iterations.get(step, step): points[step] for step in points}
                plot(axes, points, name, marker='o', markersize=3)
    losses.set(xlabel='iteration', ylabel='training loss')
    rates.set(xlabel='iteration', ylabel='learning rate')
    for axes, key in zip(others, chosen):
        axes.set(xlabel='epoch' if by_epoch else 'iteration', ylabel=key)
        axes.margins(x=0.1, y=0.1)  # room for the values of the last points
    for axes in others[len(chosen) :]:
        axes.axis('off')
    for axes in (losses, rates, *others[: len(chosen)]):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    if not is_alone or len(losses.lines) > 1:
        losses.legend(fontsize=8)
    save_figure(figure, path)


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__, needs_torch=False)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of training runs')
    add_arguments(parser, '--out', help='figure (default: curves.png in the work dir; of several runs comparison.png)')
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=[],
        metavar='NAME',
        help='metrics with these words in their names (default: all)',
    )
    args = parser.parse_args()

    folders = list({os.path.realpath(folder): folder for folder in args.work_dirs}.values())
    out = args.out or os.path.join(folders[0], 'curves.png' if len(folders) == 1 else 'comparison.png')
    if os.path.splitext(out)[1].lower() not in ('.png', '.jpg', '.jpeg', '.pdf', '.svg'):
        raise UserError(f'--out {out} must end in .png, .jpg, .pdf or .svg')
    runs = [read_run(folder) for folder in folders]
    require_writable_file(out, '--out')
    draw(dict(zip(shortest_names(folders), runs)), args.metrics, out)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
