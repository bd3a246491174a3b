"""Three names of a weight: as timm's models have it, as MMEngine's classifier has it, as the paper's release has it.

timm's are the plain ones: ``stages.`` of the backbone, ``head.fc.`` of the classifier.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .checkpoint import Match, StateDict, compare_weights

# Parts that the release names in its own way, ours first. Order matters: longer parts before parts of them.
_RELEASED = (
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


def mmengine_name(key: str) -> str:
    """The name in a model of the toolboxes."""
    return key if key.startswith('head.') else f'backbone.{key}'


def released_name(key: str) -> str:
    """The name in a checkpoint of the paper's released code."""
    if key.startswith('head.'):
        return key.replace('head.fc.', 'head.')
    _, index, part, rest = key.split('.', 3)
    stage = int(index) + 1
    if part == 'norm':
        return f'norm{stage}.{rest}'
    if part == 'patch_embed':
        layer, name = rest.split('.')
        if stage == 1:
            return f'patch_embed1.projection.{layer}.{name}'
        return f'patch_embed{stage}.{"norm" if layer == "1" else "projection"}.{name}'
    renamed = f'blocks{stage}.{rest}'
    for ours, theirs in _RELEASED:
        renamed = renamed.replace(ours, theirs)
    return renamed


NAMINGS: dict[str, Callable[[str], str]] = {'timm': str, 'mmengine': mmengine_name, 'release': released_name}


@dataclass
class Renamed:
    """Weights by timm's names, the naming they came in, and how they match, in their own names."""

    weights: StateDict
    naming: str
    match: Match


def to_timm_names(weights: StateDict, target: StateDict) -> Renamed:
    """Rename weights, of whichever naming fits them best, for a model whose own are ``target``.

    What the weights lack is left out, but counters of batches, which nothing depends on: they are the target's.
    """
    matches = {
        naming: compare_weights({name(key): value for key, value in target.items()}, weights)
        for naming, name in NAMINGS.items()
    }
    naming = max(matches, key=lambda n: len(matches[n].matched) + len(matches[n].misshapen))
    name = NAMINGS[naming]
    found = {
        key: weights.get(name(key), value)
        for key, value in target.items()
        if name(key) in weights or key.endswith('num_batches_tracked')
    }
    return Renamed(found, naming, matches[naming])
