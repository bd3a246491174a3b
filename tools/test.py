"""Test a checkpoint with the config it was trained with.

    python tools/test.py CONFIG CHECKPOINT --tta

Predictions, metrics and tables of classes go to the work dir.
"""

import argparse
import logging
import os
import time
from typing import Any

from scopevit.utils.arguments import add_arguments, add_common_arguments, scale, tool_parser
from scopevit.utils.errors import UserError, one_line, user_errors
from scopevit.utils.files import require_writable_file, write_json
from scopevit.utils.shipped import tool_command

MOST_IMAGES = 2000  # whose boxes or pixels are analysed after a test, as many as ADE20K validates with


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint')
    add_common_arguments(parser)
    add_arguments(parser, '--out', help='predictions to write (.pkl; default: predictions.pkl in the work dir)')
    add_arguments(parser, '--json', help='metrics to write (default: metrics.json in the work dir)')
    parser.add_argument(
        '--no-analysis', action='store_true', help='do not write the folder analysis beside the metrics'
    )
    parser.add_argument(
        '--tta',
        nargs='*',
        type=scale,
        metavar='SCALE',
        help='test-time augmentation: average over each image and its mirror image, at these multiples of its usual '
        'size (1 if none is given), for example --tta 0.75 1 1.25 (default: none)',
    )
    return parser.parse_args()


def write_analysis(cfg: Any, dataset: Any, predictions: str, folder: str) -> None:
    """Write what is soon read from the predictions; whatever comes of it, the metrics are written."""
    from mmengine.logging import print_log

    from scopevit.analysis.predictions import analyze, write_tables
    from scopevit.engine.evaluation import read_predictions
    from scopevit.utils.image import unreadable_files_named

    start = time.time()
    try:
        with unreadable_files_named():
            analysis = analyze(cfg, dataset, read_predictions(predictions), full=False, most=MOST_IMAGES)
        names = write_tables(analysis, folder)
    except UserError as error:
        print_log(f'No analysis of the predictions: {error}', logger='current', level=logging.WARNING)
    except Exception as error:  # of data and models of any kind
        tool = f'{tool_command("analysis/analyze_predictions.py", "analyze")} CONFIG {predictions} shows where'
        print_log(f'No analysis of the predictions: {one_line(error)}; {tool}', logger='current', level=logging.WARNING)
    else:
        took = f'{time.time() - start:.1f} s, of {analysis.of}'
        print_log(f'Wrote {", ".join(names)} to {folder} ({took})', logger='current')


def test(args: argparse.Namespace) -> tuple[Any, Any, str, str] | None:
    """Test and write the files.

    Returns:
        In the main process, what an analysis takes: it may last, so that processes part before it.
    """
    from mmengine.dist import is_main_process

    from scopevit.checks.training import failures_explained, require_sound_data
    from scopevit.engine.augmented_test import augment_test
    from scopevit.engine.console import progress_shown
    from scopevit.engine.evaluation import dump_predictions
    from scopevit.engine.gpu_settings import compile_backbone
    from scopevit.engine.launch import build_runner, end_loaders, prepare
    from scopevit.engine.resume import start_of
    from scopevit.utils.checkpoint import require_fit, to_plain
    from scopevit.utils.config import load_config

    cfg = load_config(args.config, args.cfg_options)
    if args.tta is not None:
        augment_test(cfg, args.tta or [1.0])
    prepare(cfg, args, split='test')
    # The checkpoint is the one on the command line, wherever a training by this config would start.
    given = start_of(cfg)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    # A test may take an hour: where its results go is settled before.
    predictions = args.out or os.path.join(cfg.work_dir, 'predictions.pkl')
    metrics_file = args.json or os.path.join(cfg.work_dir, 'metrics.json')
    if not predictions.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out writes a pickle file: its name must end with .pkl, but is {predictions}')
    for path, option in ((predictions, '--out'), (metrics_file, '--json')):
        require_writable_file(path, option)
    dump_predictions(cfg, predictions)

    runner = build_runner(cfg, given=given)
    # MMEngine would test with random values for what the checkpoint lacks.
    require_fit(runner.model, args.checkpoint)
    require_sound_data(runner, args.config, splits=('test',))
    if args.compile:
        compile_backbone(runner.model, runner.cfg, 'test')
    with failures_explained(runner, args.config), progress_shown(runner):
        metrics = runner.test()
    # All processes have the metrics; one writes them.
    end_loaders(runner)
    if is_main_process():
        write_json(metrics_file, to_plain(metrics))
        runner.logger.info(f'Wrote {predictions} and {metrics_file}')
        return (
            runner.cfg,
            getattr(runner.test_dataloader, 'dataset', None),
            predictions,
            os.path.join(os.path.dirname(metrics_file), 'analysis'),
        )
    return None


@user_errors()
def main() -> None:
    args = parse_args()

    from scopevit.engine.launch import leave_processes

    tested = test(args)
    leave_processes()
    if tested and not args.no_analysis:
        write_analysis(*tested)


if __name__ == '__main__':
    main()
