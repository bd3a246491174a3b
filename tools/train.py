"""Train a model from a config of any of the four toolboxes.

    python tools/train.py configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py --amp

Logs, checkpoints and the config as it was run go to the work dir.
"""

import argparse

from scopevit.utils.arguments import ARCHS, LOGGERS, add_arguments, add_common_arguments, positive, tool_parser
from scopevit.utils.errors import user_errors


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    add_common_arguments(parser)
    parser.add_argument(
        '--swap-backbone',
        choices=ARCHS,
        metavar='ARCH',
        help='put ScopeViT (xtiny, tiny or small) in place of the backbone (default: it stays)',
    )
    parser.add_argument(
        '--pretrained', metavar='CHECKPOINT', help='start with the backbone of this checkpoint (default: none)'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the latest in the work dir if there is any (default: neither)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: bfloat16 or float16 on GPUs, bfloat16 on CPUs'
    )
    parser.add_argument(
        '--amp-dtype',
        choices=('bfloat16', 'float16'),
        help='number format of --amp, which it implies (default: by the device)',
    )
    parser.add_argument(
        '--accumulate',
        type=positive,
        default=1,
        metavar='N',
        help='run each batch in N parts, for less memory, with one step of the optimizer; lengths in iterations grow '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size that is used'
    )
    parser.add_argument('--ema', action='store_true', help='validate and save a moving average of the weights')
    parser.add_argument(
        '--log-to',
        nargs='+',
        choices=LOGGERS,
        metavar='LOGGER',
        help=f'log also to {", ".join(LOGGERS)}, with figures of predictions (default: none)',
    )
    add_arguments(parser, '--seed', default=None, help="random seed (default: the config's, else a random one)")
    deterministic = 'use deterministic algorithms; on GPUs, operators without one warn'
    parser.add_argument('--deterministic', action='store_true', help=deterministic)
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    from mmengine.runner import Runner

    from scopevit.checks.channels import check_channels
    from scopevit.checks.findings import refuse_errors
    from scopevit.checks.training import failures_explained, require_sound_data
    from scopevit.engine.console import log_summary, progress_shown
    from scopevit.engine.gpu_settings import compile_backbone
    from scopevit.engine.launch import build_runner, end_loaders, prepare
    from scopevit.engine.options import draw_in_each_validation, merge_arguments
    from scopevit.engine.resume import require_fitting_start, settle_resume, start_of
    from scopevit.engine.work_dir import claim_work_dir, let_go
    from scopevit.swap import load_and_swap
    from scopevit.utils.config import load_config

    if args.swap_backbone is None:
        cfg = load_config(args.config, args.cfg_options)
    else:
        cfg = load_and_swap(args.config, args.swap_backbone, args.cfg_options)
    given = start_of(cfg)
    merge_arguments(cfg, args)
    prepare(cfg, args)
    checkpoint = settle_resume(cfg, automatic=args.resume == 'auto')
    claim_work_dir(cfg)
    runner = build_runner(cfg, checkpoint, given)
    require_fitting_start(cfg, runner, checkpoint)
    del checkpoint  # the runner lets go of it once it is loaded
    refuse_errors(check_channels(runner.model))
    require_sound_data(runner, args.config)
    if isinstance(runner, Runner):
        log_summary(runner, args.config)
        if args.log_to is not None:
            draw_in_each_validation(runner)
    if args.compile:
        compile_backbone(runner.model, runner.cfg, 'train', 'val')
    try:
        with failures_explained(runner, args.config), progress_shown(runner):
            runner.train()
    finally:
        end_loaders(runner)
        let_go()


@user_errors()
def main() -> None:
    args = parse_args()

    from scopevit.engine.launch import leave_processes
    from scopevit.engine.preemption import Stopped

    try:
        train(args)
    except Stopped:
        leave_processes()
        raise
    leave_processes()


if __name__ == '__main__':
    main()
