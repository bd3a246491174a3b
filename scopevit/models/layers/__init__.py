from .common import DropPath, FusedLinear, LayerNorm, LayerScale, Mlp, fold_batch_norm
from .gsda import GlobalScaleDilatedAttention, RelativePositionBias
from .mssa import SCOPES, ConditionalPositionalEncoding, MultiScaleSelfAttention

__all__ = [
    'SCOPES',
    'ConditionalPositionalEncoding',
    'DropPath',
    'FusedLinear',
    'GlobalScaleDilatedAttention',
    'LayerNorm',
    'LayerScale',
    'Mlp',
    'MultiScaleSelfAttention',
    'RelativePositionBias',
    'fold_batch_norm',
]
