"""Average the checkpoints of one training: alike (SWA), or the newest weighing most.

    python tools/converters/average_checkpoints.py work_dirs/x --last 5 --out average.pth
    python tools/converters/average_checkpoints.py work_dirs/x/epoch_{7,8,9}.pth --decay 0.5 --out average.pth
    python tools/converters/average_checkpoints.py work_dirs/x --last 5 --out average.pth --recompute-norms CONFIG

Floating-point weights are summed in float64; what else there is, as a batch norm's count of batches, is the newest
checkpoint's. Running means and variances of batch norms are averaged as the weights are, which is near to what the
averaged weights would give, but not that; --recompute-norms computes them again over the config's training data. The
file has weights alone, and loads as any checkpoint does; one that exists is never replaced.
"""

import argparse
import os
import tempfile

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_new_file


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT', help='two files or more, or one work dir')
    add_arguments(parser, '--out', required=True, help='file to write (.pth, .safetensors)')
    parser.add_argument(
        '--last',
        type=positive,
        metavar='N',
        help='how many of the newest checkpoints of a work dir (default: files are named)',
    )
    parser.add_argument(
        '--decay',
        type=float,
        default=1.0,
        metavar='WEIGHT',
        help='how much a checkpoint weighs, compared with the next newer one (default: %(default)s, all alike)',
    )
    add_arguments(parser, '--weights')
    parser.add_argument('--across-runs', action='store_true', help='average checkpoints of several trainings, too')
    parser.add_argument(
        '--recompute-norms',
        metavar='CONFIG',
        help="compute batch norms' statistics again, over its training data (default: they are averaged)",
    )
    add_arguments(parser, '--count', default=8192, help='how many images of these data at most (default: %(default)s)')
    add_arguments(parser, '--seed', help='random seed of the order of these data (default: %(default)s)')
    add_arguments(parser, '--cfg-options')
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[str]:
    """The files to average."""
    from scopevit.utils.averaging import last_checkpoints

    folders = [path for path in args.checkpoints if os.path.isdir(path)]
    if not folders and args.last is None:
        return args.checkpoints
    if len(args.checkpoints) > 1 or not folders:
        raise UserError(f'--last and a work dir belong together: name one folder, not {" ".join(args.checkpoints)}')
    if args.last is None:
        raise UserError(f'{folders[0]} is a folder; say how many of its checkpoints with --last N')
    return last_checkpoints(folders[0], args.last)


def with_norms(weights: dict, args: argparse.Namespace) -> str:
    """Give averaged weights batch norms' statistics of their own; returns what was done."""
    from scopevit.checks.training import failures_explained, require_sound_data
    from scopevit.engine.launch import build_bare_runner, end_loaders
    from scopevit.engine.norm_statistics import recompute_norms
    from scopevit.utils.checkpoint import CheckpointError, not_finite, require_fit, save_checkpoint
    from scopevit.utils.config import load_config

    cfg = load_config(args.recompute_norms, args.cfg_options)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        raw = os.path.join(folder, 'average.pth')
        save_checkpoint(dict(state_dict=weights), raw)
        runner = build_bare_runner(cfg, args.recompute_norms, folder)
        require_fit(runner.model, raw)  # and loads it
        require_sound_data(runner, args.recompute_norms, splits=('train',))
        with failures_explained(runner, args.recompute_norms):
            norms, batches = recompute_norms(runner, args.count)
        end_loaders(runner)
        state = runner.model.state_dict()
    weights.update({key: state[key].to(value) for key, value in weights.items() if key in state})
    broken = not_finite(weights)
    if broken:
        raise CheckpointError(f'statistics of batch norms became no finite numbers ({", ".join(broken[:3])})')
    return (
        f"statistics of {norms} batch norms recomputed over {batches} batches of {args.recompute_norms}'s training data"
    )


@user_errors()
def main() -> None:
    args = parse_args()

    from scopevit.utils.averaging import average_checkpoints
    from scopevit.utils.checkpoint import save_checkpoint

    if not 0 < args.decay <= 1:
        raise UserError(f'--decay must be above 0 and at most 1, but is {args.decay:g}')
    require_new_file(args.out, '--out')
    average = average_checkpoints(chosen(args), args.decay, args.weights, args.across_runs)
    for path, share in average.shares:
        print(f'{share:.4f} of {path}')
    if args.recompute_norms:
        print(with_norms(average.weights, args))
    save_checkpoint(dict(state_dict=average.weights, meta=average.meta), args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
