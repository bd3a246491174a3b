"""Measure models side by side: images per second, latency and memory, in evaluation or in training.

    python tools/analysis/benchmark.py configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py:deploy \\
        mmpretrain::deit/deit-small_4xb256_in1k.py 'RepViT=timm:repvit_m1_1@224' --threads 2 --plot speed.png

A model is [LABEL=]MODEL[@SIZE][:deploy][?KEY=VALUE&KEY=VALUE...]. MODEL is a config file, a config of
an installed toolbox (mmdet::...), timm:NAME, or FILE.py:FUNCTION, where the function returns a
torch.nn.Module; SIZE is 224 or 768x1280; with :deploy the model takes its form for deployment. What
stands behind ? overrides settings of the config, or is handed to the function or to timm as arguments:

    python tools/analysis/benchmark.py --train --batch-size 1 plain=CONFIG.py@768x1280 \\
        'checkpoints=CONFIG.py@768x1280?model.backbone.with_cp=True' 'timm:crossvit_small_240?num_classes=10'

Models of configs are run as mode 'tensor' of the toolboxes defines it: without losses and
post-processing. All have random weights.

They run in turn, round after round, in random order. Speeds are compared with the first one's.
A model that fails gets a row that says so; the exit status is 1 then.
"""

import argparse
import dataclasses
import os
import sys

from scopevit.utils.arguments import DTYPES, add_arguments, positive, require_device, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, write_json, write_whole
from scopevit.utils.shipped import this_command


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('models', nargs='+', metavar='MODEL', help='what to measure, see above')
    parser.add_argument('--train', action='store_true', help='training steps: forward, backward and an AdamW update')
    add_arguments(parser, '--batch-size', dest='batch')
    sizes = "height and width, or one for a square; again for each of several (default: each model's own)"
    add_arguments(parser, '--size', default=[], help=sizes)
    add_arguments(parser, '--device')
    parser.add_argument('--threads', type=positive, metavar='N', help="threads on the CPU (default: torch's choice)")
    parser.add_argument(
        '--dtype', choices=DTYPES, default='float32', help='of weights and images (default: %(default)s)'
    )
    parser.add_argument('--tf32', action='store_true', help='on GPUs: float32 products of matrices in TF32')
    parser.add_argument('--autocast', action='store_true', help='keep float32 weights, compute in --dtype')
    parser.add_argument('--channels-last', action='store_true', help='memory format of weights and images')
    add_arguments(
        parser,
        '--compile',
        help='run what torch.compile makes of the models, again for each size; in evaluation compile the deploy form: '
        'the ordinary one then computes again what else it keeps between calls',
    )
    parser.add_argument('--dynamic', action='store_true', help='with --compile: one program for all sizes')
    parser.add_argument('--deploy', action='store_true', help='the deploy form of every model that has one')
    warmup = 'steps of each model before the measurement (default: %(default)s)'
    parser.add_argument('--warmup', type=positive, default=3, metavar='N', help=warmup)
    add_arguments(parser, '--rounds', default=20)
    parser.add_argument(
        '--budget', type=float, metavar='SECONDS', help='begin no round after this time (default: no limit)'
    )
    parser.add_argument(
        '--calls', type=positive, metavar='N', help='steps in a sample (default: as many as last 0.2 s)'
    )
    add_arguments(parser, '--json', '--table')
    plot = 'figure to write: bars of images per second, or curves over several sizes (default: none)'
    add_arguments(parser, '--plot', help=plot)
    return parser.parse_args()


def require_sound_arguments(args: argparse.Namespace) -> None:
    """Refuse what would fail only after the measurement."""
    import torch

    for option in ('json', 'table', 'plot'):
        path = getattr(args, option)
        if path is not None:
            require_writable_file(path, f'--{option}')
    if args.plot:
        from matplotlib.backend_bases import FigureCanvasBase

        if os.path.splitext(args.plot)[1][1:].lower() not in FigureCanvasBase.get_supported_filetypes():
            raise UserError(f'--plot {args.plot}: figures are written as .png, .svg or .pdf')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not args.device.startswith(('cpu', 'cuda')):
        raise UserError(f'--device {args.device} cannot be used here: only cpu, cuda, cuda:1, ... are measured')
    require_device(args.device)
    if args.autocast and args.dtype == 'float32':
        raise UserError('--autocast computes in --dtype bfloat16 or float16; name one')
    if args.dynamic and not args.compile:
        raise UserError('--dynamic says how to --compile; give both')


def say(text: str) -> None:
    """Show what is being done, in place of what was shown before."""
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)


@user_errors()
def main() -> None:
    args = parse_args()

    from scopevit.analysis.measuring import compare
    from scopevit.analysis.reporting import Report, Settings
    from scopevit.analysis.spec import Spec, load_entries

    require_sound_arguments(args)
    specs = [Spec.parse(text) for text in args.models]
    if args.train and (args.deploy or any(spec.deploy for spec in specs)):
        raise UserError('the deploy form is not for training; leave --train or deploy out')
    entries = [entry for spec in specs for entry in load_entries(spec, args.size, args.deploy)]
    named = [(entry.label, entry.size) for entry in entries]
    for label, size in named:
        if named.count((label, size)) > 1:
            raise UserError(f'several models are called {label}; name them LABEL=MODEL')
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    command = this_command()

    def write_results(report: Report) -> None:
        if args.json:
            write_json(args.json, dict(command=command, **report.to_dict()))

    report = compare(entries, settings, say, after_round=write_results)
    say('')
    write_results(report)
    parts = (report.table(), report.gpu_table(), report.shares_table(), report.conditions(), f'    {command}\n')
    text = '\n\n'.join(filter(None, parts))
    print(text)
    if args.table:
        write_whole(args.table, text)
    if args.plot and report.measured:
        from scopevit.analysis.figures import plot  # slow to import

        plot(report, args.plot)
    if report.failures:
        raise UserError('; '.join(report.failures))


if __name__ == '__main__':
    main()
