"""Predict with a model of any of the four toolboxes: figures and JSON for images, folders and videos.

    python tools/predict.py CONFIG CHECKPOINT photos/ 'more/*.jpg' clip.mp4 --out-dir results

Results are named by the input's path below the folder on the command line, or by the file's name if
a file or pattern stands there: for photos/a/x.jpg, found in photos/, results/a/x.jpg has the
prediction drawn, and results/a/x.jpg.json holds it (other formats than JPEG and PNG are drawn as
x.tif.png). The JSON holds "image", "width", "height" and, by the task of the config:

  classification  "predicted" and "top", the five best: {"label", "class", "score"}
  detection       "instances": {"label", "class", "score", "bbox": [x, y, width, height]} and, if
                  the model gives masks, "mask" in COCO's RLE; "score_thr", below which they are left
                  out, and "best_score" of all (null if there is none)
  segmentation    "classes": {"label", "class", "share" of the pixels}, and "class_map", the name of
                  a PNG beside it whose values are the labels
  pose            "instances": {"bbox", "score", "keypoints": {"name", "x", "y", "score"}}

A video gives a video (MPEG-4) and one JSON whose "frames" hold the same for each frame.

Top-down pose models find the joints of one person in a box. Say where the people are:

  --boxes whole   the whole image is one person
  --boxes FILE    a JSON list of detections as COCO has them: {"image_id" or "file_name",
                  "category_id", "bbox": [x, y, width, height], "score"}. image_id is the number that
                  the file is called, file_name the path that its results are named by; people have
                  category_id 1. An image that is not in it has no people.
  --detector-config and --detector-checkpoint   a detector, of this repository or any of mmdet's

An input that cannot be read is reported and skipped; at the end the exit status is then 1. Images of
more than 8 bits are used by their upper 8, as in training; those for which that would lose most are
refused. Of a name that is too long for what is added to it, results have the beginning and a hash.
"""

import argparse
import functools
import os

from scopevit.utils.arguments import MOST_PIXELS, add_arguments, positive, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_folder
from scopevit.utils.silence import silence_toolboxes


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT', help='image, video, folder (with the folders in it) or pattern'
    )
    add_arguments(parser, '--out-dir', required=True, help='folder to write to, a new or empty one')
    parser.add_argument('--overwrite', action='store_true', help='write into a folder with files, over older results')
    add_arguments(parser, '--device')
    add_arguments(parser, '--score-thr', help='lowest score of detections, and of joints drawn (default: %(default)s)')
    parser.add_argument(
        '--max-pixels',
        type=positive,
        default=MOST_PIXELS,
        metavar='N',
        help="images that have more are skipped before they are decoded (default: %(default)s, Pillow's limit)",
    )
    parser.add_argument('--boxes', metavar='whole|FILE', help='where the people are, for pose models (default: none)')
    add_arguments(parser, '--detector-config', '--detector-checkpoint', '--detector-category', '--compile')
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()

    from rich.console import Console

    from scopevit.apis.inferencer import PoseEstimator, build_predictor
    from scopevit.apis.prediction import predict_all, set_box_finder
    from scopevit.apis.prediction_files import find_inputs, printable
    from scopevit.engine.gpu_settings import compile_backbone
    from scopevit.utils.config import load_config

    silence_toolboxes()
    console = Console(stderr=True, markup=False, highlight=False)
    note = functools.partial(console.print, soft_wrap=True)
    cfg = load_config(args.config, args.cfg_options)
    # Inputs that would write the same file are refused before a model is built.
    inputs = find_inputs(args.inputs, args.out_dir, note)
    predictor = build_predictor(cfg, args.checkpoint, args.device, args.score_thr)
    set_box_finder(predictor, inputs, args)
    # It makes the folder, which a wrong config or checkpoint should not leave behind.
    require_writable_folder(args.out_dir, '--out-dir')
    if os.listdir(args.out_dir) and not args.overwrite:
        raise UserError(
            f'--out-dir {args.out_dir} has files in it; choose another folder, or add --overwrite to write over '
            'older results (files of other names stay)'
        )
    if args.compile:
        # As many people as there are in an image make a batch, so one graph is to serve all sizes.
        of_persons = isinstance(predictor, PoseEstimator) and predictor.needs_boxes
        note(compile_backbone(predictor.model, cfg, 'test', batch_varies=of_persons))
    failed = predict_all(predictor, inputs, args, console)
    print(f'wrote the results of {len(inputs) - failed} of {len(inputs)} inputs to {printable(args.out_dir)}')
    if failed:
        raise UserError(f'{failed} of {len(inputs)} inputs could not be read or predicted; they are named above')


if __name__ == '__main__':
    main()
