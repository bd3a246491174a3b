"""Rename the weights of a classifier: those of the paper's release, of our configs, and of timm.

    python tools/converters/rename_weights.py released.pth scopevit-tiny.pth
    python tools/converters/rename_weights.py epoch_300.pth scopevit_tiny.safetensors --to timm

What the input is, is told from its names. Values stay as they are, bit by bit. Every weight has to find its
place: a checkpoint with a key too many or too few, or a weight of another shape, is refused, and the keys are named.
"""

from torch import nn

from scopevit.models import ScopeViT
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.checkpoint import (
    CheckpointError,
    StateDict,
    get_state_dict,
    read_checkpoint,
    save_checkpoint,
)
from scopevit.utils.errors import user_errors
from scopevit.utils.weight_names import NAMINGS, Renamed, to_timm_names


def expected_weights(arch: str, num_classes: int) -> StateDict:
    """A classifier's weights, by timm's names."""
    backbone = ScopeViT(arch)
    head = nn.Linear(backbone.feature_channels[-1], num_classes)
    return {**backbone.state_dict(), **{f'head.fc.{key}': value for key, value in head.state_dict().items()}}


def rename(weights: StateDict, arch: str) -> Renamed:
    """The weights of a classifier of this arch, by timm's names."""
    bias = next((weights[key] for key in ('head.fc.bias', 'head.bias') if key in weights), None)
    return to_timm_names(weights, expected_weights(arch, 1000 if bias is None else len(bias)))


def fits(renamed: Renamed) -> bool:
    match = renamed.match
    return not (match.missing or match.unexpected or match.misshapen)


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'checkpoint', help='checkpoint of a classifier')
    add_arguments(parser, 'out')
    parser.add_argument('--to', choices=sorted(NAMINGS), default='mmengine', help='whose names (default: %(default)s)')
    parser.add_argument(
        '--arch', choices=list(ScopeViT.arch_settings), help='arch of the classifier (default: the one that fits)'
    )
    args = parser.parse_args()

    weights = get_state_dict(read_checkpoint(args.checkpoint), args.checkpoint)
    tried = {arch: rename(weights, arch) for arch in ([args.arch] if args.arch else ScopeViT.arch_settings)}
    # The arch that fits, or the nearest one for the error to speak of.
    arch = max(tried, key=lambda a: (fits(tried[a]), len(tried[a].match.matched), -len(tried[a].match.missing)))
    renamed = tried[arch]
    if not fits(renamed):
        raise CheckpointError(
            f'{args.checkpoint} is not a classifier ScopeViT-{arch} by the names of {renamed.naming}, the nearest; '
            f'nothing was written: {renamed.match.describe()}'
        )
    if renamed.naming == args.to:
        others = ' or '.join(naming for naming in sorted(NAMINGS) if naming != args.to)
        raise CheckpointError(f'{args.checkpoint} has the names of {args.to} already; choose --to {others}')
    state = {NAMINGS[args.to](key): value for key, value in renamed.weights.items()}
    save_checkpoint(dict(state_dict=state, meta=dict(arch=arch)), args.out)
    print(f'ScopeViT-{arch}, from {renamed.naming} to {args.to}: {renamed.match}\nwrote {args.out}')


if __name__ == '__main__':
    main()
