"""Train a model from a config of any of the four toolboxes.

    python tools/train.py configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py --amp

Logs, checkpoints and the config as it was run go to the work dir.
"""

import argparse

from mmengine.config import Config
from mmengine.runner import Runner

from scopevit.checks.channels import check_channels
from scopevit.checks.findings import refuse_errors
from scopevit.checks.training import failures_explained, require_sound_data
from scopevit.engine.console import log_summary, progress_shown
from scopevit.engine.gpu_settings import compile_backbone, require_loss_scale
from scopevit.engine.launch import add_common_arguments, build_runner, end_loaders, leave_processes, prepare
from scopevit.engine.options import LOGGERS, accumulate, average_weights, draw_in_each_validation, log_to, use_amp
from scopevit.engine.preemption import Stopped
from scopevit.engine.resume import settle_resume
from scopevit.engine.work_dir import claim_work_dir, let_go
from scopevit.swap import load_and_swap
from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.checkpoint import read_checkpoint, require_backbone_match, require_fit
from scopevit.utils.config import as_list, load_config
from scopevit.utils.errors import UserError, user_errors


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    add_common_arguments(parser)
    parser.add_argument(
        '--swap-backbone',
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
        help='go on from this checkpoint, or from the latest in the work dir if there is any (default: start anew)',
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


def merge_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's wishes into the config, which is saved beside the results."""
    if args.amp or args.amp_dtype is not None:
        use_amp(cfg, args.amp_dtype)
    if args.ema:
        average_weights(cfg)
    if args.accumulate > 1:
        accumulate(cfg, args.accumulate)
    if args.log_to is not None:
        log_to(cfg, args.log_to)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    given = dict(seed=args.seed, deterministic=args.deterministic or None)
    given = {key: value for key, value in given.items() if value is not None}
    if given:  # without a seed of its own, a random one
        cfg.randomness = {'seed': None, **(cfg.get('randomness') or {}), **given}
    if args.resume is not None:
        cfg.resume = True
        if args.resume != 'auto':
            cfg.load_from = args.resume
    if args.pretrained is not None:
        read_checkpoint(args.pretrained)  # a wrong path ends here, not after the data has loaded
        start = dict(type='scopevit.PretrainedBackboneHook', checkpoint=args.pretrained)
        cfg.custom_hooks = [*as_list(cfg.get('custom_hooks')), start]


def require_fitting_start(cfg: Config, runner: Runner, checkpoint: dict | None) -> None:
    """Make sure that the weights to start or go on from are of this model, and none is passed over."""
    if checkpoint is not None:
        require_fit(runner.model, cfg.load_from, checkpoint)
        require_loss_scale(cfg, checkpoint)
    elif cfg.get('load_from'):
        require_backbone_match(runner.model, cfg.load_from)


def train(args: argparse.Namespace) -> None:
    if args.swap_backbone is None:
        cfg = load_config(args.config, args.cfg_options)
    else:
        cfg = load_and_swap(args.config, args.swap_backbone, args.cfg_options)
    merge_arguments(cfg, args)
    prepare(cfg, args)
    checkpoint = settle_resume(cfg, automatic=args.resume == 'auto')
    claim_work_dir(cfg)
    runner = build_runner(cfg, checkpoint)
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
    try:
        train(args)
    except Stopped:
        leave_processes()
        raise
    leave_processes()


if __name__ == '__main__':
    main()
