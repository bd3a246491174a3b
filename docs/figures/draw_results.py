"""Draw the figure of results: predictions of a quick start in every task, one row for each.

    bash tools/quickstart.sh --task all
    python docs/figures/draw_results.py work_dirs/quickstart/TIME

The images are drawn at random from the test sets, as tools/visualization/draw_predictions.py does it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
from PIL import Image, ImageChops, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEADING, GAP = 1500, 44, 8  # pixels
# A work dir, the row's heading, its metrics, and how many images are side by side.
ROWS = [
    ('pretraining', 'Classification', {'accuracy/top1': 'top-1 {:.1f} %'}, 8),
    (
        'mask-rcnn_*',
        'Detection and instance segmentation, Mask R-CNN',
        {'coco/bbox_mAP_50': 'box AP50 {:.3f}', 'coco/segm_mAP_50': 'mask AP50 {:.3f}'},
        2,
    ),
    ('scopevit-xtiny_fpn_*', 'Semantic segmentation, Semantic FPN', {'mIoU': 'mIoU {:.1f} %'}, 2),
    ('td-hm_*', 'Pose estimation, top-down heatmaps', {'coco/AP': 'AP {:.3f}'}, 4),
]


def draw(work_dir: Path, cols: int, seed: int) -> Image.Image:
    """Predictions for some test images, without a frame; in dense tasks with the ground truth on the left."""
    (config,) = work_dir.glob('*.py')
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'drawn.png'
        tool = [sys.executable, 'tools/visualization/draw_predictions.py', config, work_dir / 'predictions.pkl']
        layout = ['--count', str(cols), '--cols', str(cols), '--seed', str(seed), '--out', out]
        subprocess.run([*tool, *layout], cwd=ROOT, check=True)
        image = Image.open(out).convert('RGB')
    return image.crop(ImageChops.difference(image, Image.new('RGB', image.size, 'white')).getbbox())


def draw_row(work_dir: Path, cols: int, seed: int) -> Image.Image:
    """As many images side by side, all of one height."""
    if work_dir.name == 'pretraining':  # its names of classes need one font size
        tiles = [draw(work_dir, cols, seed)]
    else:
        tiles = [draw(work_dir, 1, seed + i) for i in range(cols)]
    height = int((WIDTH - GAP * (len(tiles) - 1)) / sum(tile.width / tile.height for tile in tiles))
    row, left = Image.new('RGB', (WIDTH, height), 'white'), 0
    for tile in tiles:
        width = round(height * tile.width / tile.height)
        row.paste(tile.resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('run', metavar='RUN', type=Path, help='folder of a quick start with --task all')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed, by which images are chosen (default: %(default)s)',
    )
    out = Path(__file__).with_name('results.jpg')
    parser.add_argument(
        '--out', metavar='FILE', type=Path, default=out, help='figure to write (default: beside this file)'
    )
    args = parser.parse_args()
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf', 22)
    rows = []
    for name, heading, metrics, cols in ROWS:
        (work_dir,) = args.run.resolve().glob(name)
        measured = json.loads((work_dir / 'metrics.json').read_text())
        heading += ': ' + ', '.join(text.format(measured[key]) for key, text in metrics.items())
        rows.append((heading, draw_row(work_dir, cols, args.seed)))
    figure = Image.new('RGB', (WIDTH, sum(row.height + HEADING for _, row in rows)), 'white')
    pen, top = ImageDraw.Draw(figure), 0
    for heading, row in rows:
        pen.text((12, top + 10), heading, 'black', font)
        figure.paste(row, (0, top + HEADING))
        top += row.height + HEADING
    figure.save(args.out, quality=82)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
