"""Rename the weights of a classifier: those of the paper's release, of our configs, and of timm.

    python tools/converters/rename_weights.py released.pth scopevit-tiny.pth
    python tools/converters/rename_weights.py epoch_300.pth scopevit_tiny.safetensors --to timm

What the input is, is told from its names. Values stay as they are, bit by bit. Every weight has to find its
place: a checkpoint with a key too many or too few, or a weight of another shape, is refused, and keys are named.
"""

from scopevit.utils.arguments import ARCHS, NAMINGS, add_arguments, tool_parser
from scopevit.utils.errors import user_errors


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'checkpoint', help='checkpoint of a classifier')
    add_arguments(parser, 'out', '--weights')
    parser.add_argument('--to', choices=NAMINGS, default='mmengine', help='whose names (default: %(default)s)')
    parser.add_argument('--arch', choices=ARCHS, help='arch of the classifier (default: the one that fits)')
    args = parser.parse_args()

    from scopevit.apis.renaming import rename_classifier
    from scopevit.utils.checkpoint import save_checkpoint

    state, arch, renamed = rename_classifier(args.checkpoint, args.to, args.arch, args.weights)
    save_checkpoint(dict(state_dict=state, meta=dict(arch=arch)), args.out)
    print(f'ScopeViT-{arch}, from {renamed.naming} to {args.to}: {renamed.match}\nwrote {args.out}')


if __name__ == '__main__':
    main()
