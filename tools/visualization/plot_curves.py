"""Draw the training loss and the validation metrics of a work dir.

python tools/visualization/plot_curves.py work_dirs/x --out curves.png
"""

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import whole_file

NOT_PLOTTED = ('step', 'epoch', 'iter', 'time', 'data_time', 'memory')


def read_scalars(work_dir: str) -> tuple[dict[str, dict], dict[str, dict]]:
    """What MMEngine logged, over all (resumed) runs of a work dir: training and validation by step.

    Raises:
        UserError: If nothing was logged there.
    """
    train, val = defaultdict(dict), defaultdict(dict)
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
            step = entry.get('step', 0)
            target = train if 'loss' in entry else val
            for key, value in entry.items():
                if key not in NOT_PLOTTED:
                    target[key][entry.get('iter', step) if target is train else step] = value
    if not train:
        raise UserError(f'{work_dir} has no training log (<time>/vis_data/scalars.json)')
    return train, val


def draw(work_dir: str, out: str) -> None:
    train, val = read_scalars(work_dir)
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for key, points in train.items():
        if 'loss' in key:
            steps = sorted(points)
            left.plot(steps, [points[s] for s in steps], label=key)
    left.set(xlabel='iteration', ylabel='training loss')
    for key, points in val.items():
        steps = sorted(points)
        right.plot(steps, [points[s] for s in steps], marker='o', markersize=3, label=key)
        right.annotate(
            f'{points[steps[-1]]:.4g}', (steps[-1], points[steps[-1]]), xytext=(0, 6), textcoords='offset points'
        )
    right.set(xlabel='validated after (epoch or iteration)', ylabel='validation metric')
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.margins(x=0.1, y=0.1)  # room for the values of the last points
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with whole_file(out) as temporary:
        figure.savefig(temporary, dpi=110)
    print(f'wrote {out}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', help='work dir of a training run')
    parser.add_argument('--out', help='figure to write (default: curves.png in the work dir)')
    args = parser.parse_args()
    with user_errors():
        draw(args.work_dir, args.out or os.path.join(args.work_dir, 'curves.png'))


if __name__ == '__main__':
    main()
