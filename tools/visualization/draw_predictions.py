"""Draw what a model predicts for test images beside the ground truth: one figure of several images.

    python tools/visualization/draw_predictions.py CONFIG predictions.pkl --out predictions.png

The predictions are what tools/test.py wrote for the same config, of any task: classes (mistakes
in red), boxes and masks, segmentation, or keypoints (in pairs: ground truth, prediction).
"""

import random

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.errors import user_errors
from scopevit.utils.files import save_figure
from scopevit.utils.silence import silence_toolboxes


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

    from scopevit.apis.painter import Painter, draw_classes, require_writable_figure, save_grid
    from scopevit.apis.samples import require_same_images
    from scopevit.checks.loading import build_dataset
    from scopevit.engine.evaluation import read_predictions
    from scopevit.utils.config import load_config
    from scopevit.utils.image import unreadable_files_named

    silence_toolboxes()
    cfg = load_config(args.config, args.cfg_options)
    require_writable_figure(args.out)
    results = read_predictions(args.predictions)
    dataset = build_dataset(cfg, 'test', args.config)
    # Predictions of other data would be drawn over these images without an error.
    require_same_images(dataset, results)
    # A class is written above a small image; what has a place in the image needs a large one, and a pair of them.
    is_classifier = 'pred_label' in results[0]
    count, cols = args.count or (40 if is_classifier else 8), args.cols or (8 if is_classifier else 2)
    chosen = sorted(random.Random(args.seed).sample(range(len(dataset)), min(count, len(dataset))))
    with unreadable_files_named():
        if is_classifier:
            save_figure(draw_classes(dataset, results, chosen, cols), args.out)
        else:
            painter = Painter(cfg, dataset, args.score_thr)
            save_grid([painter.prediction(i, results[i]) for i in chosen], cols, args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
