"""Test a checkpoint with the config it was trained with; writes predictions and metrics to files."""

import argparse
import json
import os

from mmengine.dist import is_main_process

from scopevit.engine.checkpoint import check_fits, to_plain
from scopevit.engine.errors import user_errors
from scopevit.engine.launch import add_common_arguments, build_runner, check_writable, load_config, prepare


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or a config of an installed toolbox such as mmdet::...')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_arguments(parser)
    parser.add_argument(
        '--out', metavar='FILE', help='pickle file for the predictions (default: predictions.pkl in the work dir)'
    )
    parser.add_argument(
        '--metrics', metavar='FILE', help='JSON file for the metrics (default: metrics.json in the work dir)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        cfg = load_config(args.config, args.cfg_options)
        prepare(cfg, args)
        cfg.load_from = args.checkpoint
        cfg.resume = False
        predictions = args.out or os.path.join(cfg.work_dir, 'predictions.pkl')
        metrics_file = args.metrics or os.path.join(cfg.work_dir, 'metrics.json')
        for path in (predictions, metrics_file):
            check_writable(os.path.dirname(os.path.abspath(path)))
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=predictions)]

        runner = build_runner(cfg)
        model = getattr(runner.model, 'module', runner.model)
        check_fits(model, args.checkpoint)
        metrics = runner.test()
        if is_main_process():
            with open(metrics_file, 'w') as file:
                json.dump(to_plain(metrics), file, indent=2)
            runner.logger.info(f'Wrote {predictions} and {metrics_file}')


if __name__ == '__main__':
    main()
