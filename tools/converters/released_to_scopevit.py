"""Turn a checkpoint of the paper's released code into one for the classification configs.

    python tools/converters/released_to_scopevit.py released.pth scopevit-tiny.pth

Every weight has to find its place: a checkpoint with a key too many or too few, or a weight of
another shape, is refused, and the keys are named.
"""

import argparse

from torch import nn

from scopevit.models import ScopeViT
from scopevit.utils.checkpoint import (
    CheckpointError,
    Match,
    StateDict,
    compare_weights,
    get_state_dict,
    read_checkpoint,
    save_checkpoint,
)
from scopevit.utils.errors import user_errors

# Renamed parts, ours first. Order matters: longer parts before parts of them.
RENAMED = (
    ('.mssa.attn.cpe.expand.0.', '.mssa.attn.mspe.cpe.conv_pw.'),
    ('.mssa.attn.cpe.expand.1.', '.mssa.attn.mspe.cpe.bn1.0.'),
    ('.mssa.attn.cpe.depthwise.0.', '.mssa.attn.mspe.cpe.conv_dw.'),
    ('.mssa.attn.cpe.depthwise.1.', '.mssa.attn.mspe.cpe.bn2.0.'),
    ('.mssa.attn.cpe.project.0.', '.mssa.attn.mspe.cpe.conv_pwl.'),
    ('.mssa.attn.cpe.project.1.', '.mssa.attn.mspe.cpe.bn3.'),
    ('.mssa.attn.scopes.7x7.', '.mssa.attn.mspe.large_embed.'),
    ('.mssa.attn.scopes.5x5.', '.mssa.attn.mspe.medium_embed.'),
    ('.mssa.attn.scopes.3x3.', '.mssa.attn.mspe.small_embed.'),
    ('.gsda.attn.rel_pos.fc', '.gsda.attn.rel_pos.mlp.fc'),
)


def released_key(key: str) -> str:
    """The released name of a weight of our classifier (``backbone.stages...`` or ``head.fc...``)."""
    if key.startswith('head.fc.'):
        return key.replace('head.fc.', 'head.')
    _, _, stage, part, rest = key.split('.', 4)
    stage = int(stage) + 1
    if part == 'norm':
        return f'norm{stage}.{rest}'
    if part == 'patch_embed':
        index, name = rest.split('.')
        if stage == 1:
            return f'patch_embed1.projection.{index}.{name}'
        return f'patch_embed{stage}.{"norm" if index == "1" else "projection"}.{name}'
    renamed = f'blocks{stage}.{rest}'
    for ours, theirs in RENAMED:
        renamed = renamed.replace(ours, theirs)
    return renamed


def expected_weights(arch: str, num_classes: int) -> StateDict:
    """Weights as mmpretrain's classifier with our backbone names them."""
    backbone = ScopeViT(arch)
    head = nn.Linear(backbone.feature_channels[-1], num_classes)
    return {
        **{f'backbone.{key}': value for key, value in backbone.state_dict().items()},
        **{f'head.fc.{key}': value for key, value in head.state_dict().items()},
    }


def convert(released: StateDict, arch: str) -> tuple:
    """Rename released weights for the classification configs.

    Returns:
        The renamed weights, and how the released ones match the arch, in released names.
    """
    num_classes = len(released['head.bias']) if 'head.bias' in released else 1000
    expected = {released_key(key): (key, value) for key, value in expected_weights(arch, num_classes).items()}
    match = compare_weights({name: value for name, (_, value) in expected.items()}, released)
    return {key: released.get(name, value) for name, (key, value) in expected.items()}, match


def fits(match: Match) -> bool:
    return not (match.missing or match.unexpected or match.misshapen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', metavar='IN', help='checkpoint of the released code')
    parser.add_argument('output', metavar='OUT', help='file to write')
    parser.add_argument('--arch', choices=list(ScopeViT.arch_settings), help='default: the one that fits')
    args = parser.parse_args()
    with user_errors():
        released = get_state_dict(read_checkpoint(args.input), args.input)
        tried = {arch: convert(released, arch) for arch in ([args.arch] if args.arch else ScopeViT.arch_settings)}
        # The arch that fits, or the nearest one for the error to speak of.
        arch = max(tried, key=lambda a: (fits(tried[a][1]), len(tried[a][1].matched), -len(tried[a][1].missing)))
        weights, match = tried[arch]
        if not fits(match):
            raise CheckpointError(
                f'{args.input} is not a released checkpoint of ScopeViT-{arch}; nothing was written: {match.describe()}'
            )
        save_checkpoint(dict(state_dict=weights, meta=dict(arch=arch)), args.output)
        print(f'ScopeViT-{arch}: {match}\nwrote {args.output}')


if __name__ == '__main__':
    main()
