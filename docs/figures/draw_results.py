"""Draw the figure of results: predictions of a quick start in every task, one row for each.

    bash tools/quickstart.sh --task all
    python docs/figures/draw_results.py work_dirs/quickstart/TIME

The images are drawn at random from the test sets, as tools/visualization/draw_predictions.py does it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.image import write_text

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEADING = 1500, 44  # pixels
# A work dir, the row's heading, its metrics, and how many images are side by side.
ROWS = [
    ('pretraining', 'Classification', {'accuracy/top1': 'top-1 {:.1f} %'}, 8),
    (
        'mask-rcnn_*',
        'Detection and instance segmentation, Mask R-CNN',
        {'coco/bbox_mAP_50': 'box AP50 {:.3f}', 'coco/segm_mAP_50': 'mask AP50 {:.3f}'},
        3,
    ),
    ('scopevit-xtiny_fpn_*', 'Semantic segmentation, Semantic FPN', {'mIoU': 'mIoU {:.1f} %'}, 3),
    ('td-hm_*', 'Pose estimation, top-down heatmaps', {'coco/AP': 'AP {:.3f}'}, 6),
]


def draw(heading: str, work_dir: Path, cols: int, seed: int) -> np.ndarray:
    """A line of text, and below it predictions for some test images side by side."""
    (config,) = work_dir.glob('*.py')
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'drawn.png'
        tool = [sys.executable, 'tools/visualization/draw_predictions.py', config, work_dir / 'predictions.pkl']
        layout = ['--count', str(cols), '--cols', str(cols), '--seed', str(seed), '--out', out]
        subprocess.run([*tool, *layout], cwd=ROOT, check=True)
        drawn = Image.open(out).convert('RGB')
    row = np.asarray(drawn.resize((WIDTH, round(WIDTH * drawn.height / drawn.width)), Image.Resampling.LANCZOS))
    above = np.full((HEADING, WIDTH, 3), 255, np.uint8)
    write_text(above, heading, (12, 10), 22)
    return np.concatenate([above, row])


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('run', metavar='RUN', type=Path, help='folder of a quick start with --task all')
    add_arguments(parser, '--seed', help='random seed, by which images are chosen (default: %(default)s)')
    out = Path(__file__).with_name('results.jpg')
    add_arguments(parser, '--out', type=Path, default=out, help='figure to write (default: beside this file)')
    args = parser.parse_args()
    rows = []
    for name, heading, metrics, cols in ROWS:
        (work_dir,) = args.run.resolve().glob(name)
        measured = json.loads((work_dir / 'metrics.json').read_text())
        heading += ': ' + ', '.join(text.format(measured[key]) for key, text in metrics.items())
        rows.append(draw(heading, work_dir, cols, args.seed))
    Image.fromarray(np.concatenate(rows)).save(args.out, quality=82)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
