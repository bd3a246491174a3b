from .common import DropPath, LayerScale, Mlp, PatchEmbed, PointwiseConv, TransformerBlock
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
    'PointwiseConv',
    'RelativePositionBias',
    'TransformerBlock',
]
