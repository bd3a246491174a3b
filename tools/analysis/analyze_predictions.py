"""Read the predictions of a test run: per class, confused classes, precision and recall, the worst images.

    python tools/analysis/analyze_predictions.py CONFIG work_dirs/x/predictions.pkl

The predictions are what tools/test.py wrote for the same config, of any task. Rates are between 0 and 1.
"""

import argparse
import os

from mmengine.registry import init_default_scope

from scopevit.analysis.predictions import analyze, summary, write_figures, write_tables
from scopevit.checks.loading import build_dataset
from scopevit.engine.evaluation import read_predictions
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.config import add_config_options, load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import check_writable
from scopevit.utils.shipped import tool_command


def read(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    if not os.path.isfile(args.predictions):
        raise UserError(f'{args.predictions} does not exist; {tool_command("test.py", "test")} writes it')
    if cfg.get('test_dataloader') is None:
        raise UserError(f'config {args.config} has no test_dataloader')
    out_dir = args.out_dir or os.path.join(os.path.dirname(args.predictions), 'analysis')
    check_writable(out_dir, '--out-dir')
    results = read_predictions(args.predictions)
    init_default_scope(cfg.get('default_scope'))
    dataset = build_dataset(cfg, 'test', args.config)
    analysis = analyze(cfg, dataset, results, score_thr=args.score_thr)
    written = write_tables(analysis, out_dir) + write_figures(analysis, cfg, out_dir, args.count, args.score_thr)
    print(summary(analysis))
    print(f'wrote {", ".join(written)} to {out_dir}')


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'predictions')
    add_arguments(parser, '--out-dir', help='folder to write to (default: analysis, beside the predictions)')
    add_arguments(parser, '--count', default=12, help='how many of the worst images to draw (default: %(default)s)')
    add_arguments(parser, '--score-thr', help='lowest score of boxes that count (default: %(default)s)')
    add_config_options(parser)
    args = parser.parse_args()
    with user_errors():
        read(args)


if __name__ == '__main__':
    main()
