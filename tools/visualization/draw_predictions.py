"""Draw what a model predicts for test images beside the ground truth: one figure of several images.

    python tools/visualization/draw_predictions.py CONFIG predictions.pkl --out predictions.png

The predictions are what tools/test.py wrote for the same config, of any task: classes (mistakes
in red), boxes and masks, segmentation, or keypoints (in pairs: ground truth, prediction).
"""

import math
import random

import mmcv
import numpy as np
from matplotlib.figure import Figure

from scopevit.apis.painter import Painter, require_writable_figure, save_grid
from scopevit.checks.loading import build_dataset
from scopevit.engine.evaluation import read_predictions
from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import whole_file
from scopevit.utils.image import unreadable_files_named
from scopevit.utils.toolboxes import silence_toolboxes


def load_image(info: dict) -> np.ndarray:
    """The image of a data set's entry, as grey or RGB."""
    image = info['img'] if 'img' in info else mmcv.imread(info['img_path'], channel_order='rgb')
    return image.squeeze()


def draw_classes(dataset: object, results: list, chosen: list, cols: int) -> Figure:
    classes, rows = dataset.metainfo['classes'], math.ceil(len(chosen) / cols)
    figure = Figure(figsize=(1.7 * cols, 2.05 * rows), layout='constrained')
    grid = figure.subplots(rows, cols, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, i in zip(grid.flat, chosen):
        label, target = int(results[i]['pred_label']), int(results[i]['gt_label'])
        score = float(results[i]['pred_score'].max())
        axes.imshow(load_image(dataset.get_data_info(i)), cmap='gray')
        names = [classes[k].split(',')[0] for k in (label, target)]
        title = f'{names[0]} {score:.0%}' + ('' if label == target else f'\nnot {names[1]}')
        axes.set_title(title, fontsize=8, color='darkgreen' if label == target else 'red')
    right = sum(int(r['pred_label']) == int(r['gt_label']) for r in results)
    figure.suptitle(f'{right} of {len(results)} test images right ({right / len(results):.1%}); {len(chosen)} of them:')
    return figure


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'predictions')
    add_arguments(parser, '--out', default='predictions.png')
    add_arguments(parser, '--count', help='how many images (default: 40 of a classifier, else 8)')
    parser.add_argument(
        '--cols', type=positive, metavar='N', help='images in a row (default: 8 of a classifier, else 2)'
    )
    add_arguments(parser, '--seed', help='random seed, by which they are chosen (default: %(default)s)')
    add_arguments(parser, '--score-thr', help='lowest score of boxes that are drawn (default: %(default)s)')
    args = parser.parse_args()
    silence_toolboxes()

    cfg = load_config(args.config, args.cfg_options)
    require_writable_figure(args.out)
    results = read_predictions(args.predictions)
    dataset = build_dataset(cfg, 'test', args.config)
    if len(results) != len(dataset):
        raise UserError(
            f'{args.predictions} holds predictions for {len(results)} images, but the test set of {args.config} has '
            f'{len(dataset)}; were they made with another config?'
        )
    is_classifier = 'pred_label' in results[0]
    count, cols = args.count or (40 if is_classifier else 8), args.cols or (8 if is_classifier else 2)
    chosen = sorted(random.Random(args.seed).sample(range(len(dataset)), min(count, len(dataset))))
    if is_classifier:
        with whole_file(args.out) as temporary:
            draw_classes(dataset, results, chosen, cols).savefig(temporary, dpi=110)
    else:
        painter = Painter(cfg, dataset, args.score_thr)
        with unreadable_files_named():
            items = [painter.prediction(i, results[i]) for i in chosen]
        save_grid(items, cols, args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
