"""Predicting for all inputs that tools/predict.py is given."""

import argparse
import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..utils.errors import UserError, one_line, raise_own
from .inferencer import PoseEstimator, Predictor
from .model import computes
from .people import boxes_from_file, detected_boxes, whole_image
from .prediction_files import Input, frames_of, opened_video, predict_image, predict_video, printable


def set_box_finder(predictor: Predictor, inputs: list[Input], args: argparse.Namespace) -> None:
    """Tell a pose model where the people are.

    Raises:
        UserError: If the options do not fit one another or the model.
    """
    ways = [bool(args.boxes), bool(args.detector_config or args.detector_checkpoint)]
    if not isinstance(predictor, PoseEstimator) or not predictor.needs_boxes:
        if any(ways):
            raise UserError('--boxes and --detector-... are for top-down pose models; this model needs no boxes')
        return
    if sum(ways) != 1:
        raise UserError(
            'this pose model finds the joints of one person in a box: give either --boxes whole, --boxes FILE, '
            'or --detector-config with --detector-checkpoint'
        )
    if args.boxes == 'whole':
        predictor.find_boxes = whole_image
    elif args.boxes:
        predictor.find_boxes = boxes_from_file(args.boxes, inputs)
    else:
        detector = args.detector_config, args.detector_checkpoint, args.detector_category
        predictor.find_boxes = detected_boxes(*detector, predictor.device, args.score_thr)


def _predict(predictor: Predictor, item: Input, args: argparse.Namespace, progress: Progress) -> None:
    if not item.is_video:
        predict_image(predictor, item, args.out_dir, args.max_pixels)
        return
    with opened_video(item.path) as video:
        total = frames_of(video) or None
    bar = progress.add_task(os.path.basename(item.shown), total=total)
    try:
        predict_video(predictor, item, args.out_dir, lambda: progress.advance(bar))
    finally:
        progress.remove_task(bar)


def predict_all(predictor: Predictor, inputs: list[Input], args: argparse.Namespace, console: Console) -> int:
    """Write the results of all inputs that can be read; returns how many could not."""
    failed = 0
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task('predicting', total=len(inputs))
        for item in inputs:
            try:
                _predict(predictor, item, args, progress)
            except Exception as error:  # whatever is wrong with one input, the others are to be done
                raise_own(error)
                if not computes(predictor.device):
                    raise
                failed += 1
                reason = str(error) if isinstance(error, UserError) else f'cannot be predicted: {one_line(error)}'
                console.print(f'skipped: {item.shown} {printable(reason)}', soft_wrap=True)
            progress.advance(bar)
    return failed
