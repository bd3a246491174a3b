from .common import ConvNormAct, DropPath, LayerScale, Mlp, PatchEmbed, TransformerBlock
from .gsda import GlobalScaleDilatedAttention, RelativePositionBias
from .mssa import SCOPES, ConditionalPositionalEncoding, MultiScaleSelfAttention

__all__ = [
    'SCOPES',
    'ConditionalPositionalEncoding',
    'ConvNormAct',
    'DropPath',
    'GlobalScaleDilatedAttention',
    'LayerScale',
    'Mlp',
    'MultiScaleSelfAttention',
    'PatchEmbed',
    'RelativePositionBias',
    'TransformerBlock',
]
