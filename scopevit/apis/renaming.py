"""Renaming the weights of a classifier, whichever of the three namings they came in."""

from torch import nn

from ..models import ScopeViT
from ..utils.checkpoint import CheckpointError, StateDict, read_checkpoint, select_weights
from ..utils.weight_names import NAMINGS, Renamed, to_timm_names


def expected_weights(arch: str, num_classes: int) -> StateDict:
    """A classifier's weights, by timm's names."""
    backbone = ScopeViT(arch)
    head = nn.Linear(backbone.feature_channels[-1], num_classes)
    return {**backbone.state_dict(), **{f'head.fc.{key}': value for key, value in head.state_dict().items()}}


def _rename(weights: StateDict, arch: str) -> Renamed:
    """The weights of a classifier of this arch, by timm's names."""
    bias = next((weights[key] for key in ('head.fc.bias', 'head.bias') if key in weights), None)
    return to_timm_names(weights, expected_weights(arch, 1000 if bias is None else len(bias)))


def _fits(renamed: Renamed) -> bool:
    match = renamed.match
    return not (match.missing or match.unexpected or match.misshapen)


def rename_classifier(
    checkpoint: str, to: str, arch: str | None = None, kind: str = 'auto'
) -> tuple[StateDict, str, Renamed]:
    """Rename a checkpoint's weights.

    Args:
        to: A name of ``NAMINGS``.
        arch: Of the classifier; None: the one that fits.
        kind: Which weights, see :func:`.checkpoint.select_weights`.

    Returns:
        The weights by their new names, their arch, and what they were called.

    Raises:
        CheckpointError: If it cannot be read, has no such weights, has the names already, or is not a classifier of
            such an arch.
    """
    weights = select_weights(read_checkpoint(checkpoint), kind, checkpoint)
    tried = {name: _rename(weights, name) for name in ([arch] if arch else ScopeViT.arch_settings)}
    # The arch that fits, or the nearest one for the error to speak of.
    arch = max(tried, key=lambda a: (_fits(tried[a]), len(tried[a].match.matched), -len(tried[a].match.missing)))
    renamed = tried[arch]
    if not _fits(renamed):
        raise CheckpointError(
            f'{checkpoint} is not a classifier ScopeViT-{arch} by the names of {renamed.naming}, the nearest; '
            f'nothing was written: {renamed.match.describe(most=20)}'
        )
    if renamed.naming == to:
        others = ' or '.join(naming for naming in sorted(NAMINGS) if naming != to)
        raise CheckpointError(f'{checkpoint} has the names of {to} already; choose --to {others}')
    return {NAMINGS[to](key): value for key, value in renamed.weights.items()}, arch, renamed
