"""Measure whether a training waits for its data: time per iteration, split into data and model.

    python tools/analysis/data_time.py configs/detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py
    python tools/analysis/data_time.py CONFIG... --workers 0 2 4 --cfg-options train_dataloader.batch_size=16
    python tools/analysis/data_time.py CONFIG --speed 2500 --gpus 8

The data, the loader and a training step, with the optimizer's update and without hooks, are those of the config.
Waiting is the time until the next batch is there, loaders that start again at a new epoch included; the model's time
is all the rest, with the data preprocessor, which works in this process. Beside both stands what the loader alone
delivers: where that is more than the training takes, data are no bottleneck, unless both share the same CPUs. With
--speed it says how many such cores it takes to feed GPUs of that speed.
"""

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.cores import usable_cores
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, write_json, write_whole
from scopevit.utils.shipped import this_command


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    configs = 'config files, or configs of an installed toolbox such as mmdet::...'
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help=configs)
    parser.add_argument(
        '--iters', type=positive, default=50, metavar='N', help='iterations to measure (default: %(default)s)'
    )
    parser.add_argument(
        '--warmup', type=positive, default=10, metavar='N', help='iterations before them (default: %(default)s)'
    )
    parser.add_argument(
        '--workers', nargs='+', type=int, metavar='N', help="numbers of loader processes (default: the config's)"
    )
    parser.add_argument(
        '--speed', type=positive, metavar='IMAGES', help='images per second of one GPU (default: not asked)'
    )
    parser.add_argument(
        '--gpus', type=positive, default=8, metavar='N', help='GPUs of that speed (default: %(default)s)'
    )
    add_arguments(parser, '--json', '--table')
    add_arguments(parser, '--cfg-options')
    return parser.parse_args()


def training(config: str, cfg_options: dict | None, workers: int | None, folder: str) -> Any:
    """The Runner of a config, ready for training steps."""
    from scopevit.checks.training import require_sound_data
    from scopevit.engine.launch import build_bare_runner
    from scopevit.utils.config import load_config

    cfg = load_config(config, cfg_options)
    given = set(cfg_options or ())
    if workers is not None and isinstance(cfg.get('train_dataloader'), dict):
        given.add('train_dataloader.num_workers')
        loader = cfg.train_dataloader
        loader.num_workers = workers
        if not workers:
            loader.persistent_workers = False
            loader.pop('prefetch_factor', None)
    runner = build_bare_runner(cfg, config, folder, given)
    require_sound_data(runner, config, splits=('train',))
    runner.model.init_weights()
    runner.model.train()
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
    return runner


@user_errors()
def main() -> None:
    args = parse_args()

    import torch

    from scopevit.analysis.data_time import cores_for, measure, table
    from scopevit.analysis.machine import describe_machine, load_average, machine_in_words
    from scopevit.checks.training import failures_explained
    from scopevit.engine.launch import end_loaders

    if min(args.workers or [0]) < 0:
        raise UserError('--workers must be at least 0')
    # Refused before the first measurement, not after the last.
    for option in ('json', 'table'):
        if getattr(args, option):
            require_writable_file(getattr(args, option), f'--{option}')
    rows = []
    machine = describe_machine('cuda' if torch.cuda.is_available() else 'cpu')
    for config in args.configs:
        for workers in args.workers or [None]:
            # MMEngine wants a work dir, of which nothing is kept.
            with tempfile.TemporaryDirectory() as folder:
                runner = training(config, args.cfg_options, workers, folder)
                with failures_explained(runner, config):
                    row = measure(runner, args.iters, args.warmup)
                rows.append(dict(config=Path(config).stem, **row))
                end_loaders(runner)
                # Its memory and its loader's processes would slow the next one down.
                del runner
                gc.collect()
    machine['load_after'] = load_average()
    needs = ''
    if args.speed:
        needs = ''.join(f'- {cores_for(row, args.speed, args.gpus, usable_cores())}\n' for row in rows) + '\n'
    text = (
        f'{table(rows)}\n\n{needs}'
        "The data preprocessor counts to the model; times are medians and quartiles of an iteration's.\n"
        f'{machine_in_words(machine)}\n\n    {this_command()}\n'
    )
    print(text)
    if args.table:
        write_whole(args.table, text)
    if args.json:
        write_json(args.json, dict(command=this_command(), machine=machine, results=rows))


if __name__ == '__main__':
    main()
