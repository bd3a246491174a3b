"""Read the predictions of a test run: per class, confused classes, precision and recall, the worst images.

    python tools/analysis/analyze_predictions.py CONFIG work_dirs/x/predictions.pkl

The predictions are what tools/test.py wrote for the same config, of any task. Rates are between 0 and 1.
"""

import os

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import user_errors
from scopevit.utils.files import require_writable_folder


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'predictions')
    add_arguments(parser, '--out-dir', help='folder to write to (default: analysis, beside the predictions)')
    add_arguments(parser, '--count', default=12, help='how many of the worst images to draw (default: %(default)s)')
    add_arguments(parser, '--score-thr', help='lowest score of boxes that count (default: %(default)s)')
    args = parser.parse_args()

    from scopevit.analysis.predictions import analyze, summary, write_figures, write_tables
    from scopevit.checks.loading import build_dataset
    from scopevit.engine.evaluation import read_predictions
    from scopevit.utils.config import load_config
    from scopevit.utils.image import unreadable_files_named

    cfg = load_config(args.config, args.cfg_options)
    results = read_predictions(args.predictions)
    out_dir = args.out_dir or os.path.join(os.path.dirname(args.predictions), 'analysis')
    require_writable_folder(out_dir, '--out-dir')
    dataset = build_dataset(cfg, 'test', args.config)
    with unreadable_files_named():
        analysis = analyze(cfg, dataset, results, score_thr=args.score_thr)
        written = write_tables(analysis, out_dir)
        written += write_figures(analysis, cfg, out_dir, args.count, args.score_thr)
    print(summary(analysis))
    print(f'wrote {", ".join(written)} to {out_dir}')


if __name__ == '__main__':
    main()
