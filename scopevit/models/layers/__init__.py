from .common import DropPath, LayerScale, Mlp, PatchEmbed, PointwiseFirst, TransformerBlock
from .gsda import GlobalScaleDilatedAttention, RelativePositionBias
from .mssa import SCOPES, ConditionalPositionalEncoding, MultiScaleSelfAttention

__all__ = [
    'SCOPES',
    'ConditionalPositionalEncoding',
    'DropPath',
    'GlobalScaleDilatedAttention',
    'LayerScale',
    'Mlp',
    'MultiScaleSelfAttention',
    'PatchEmbed',
    'PointwiseFirst',
    'RelativePositionBias',
    'TransformerBlock',
]
