from .evit import EViT, EViTKeepRateHook
from .mpvit import MPViT
from .p2t import P2T
from .shunted import Shunted

__all__ = ['P2T', 'EViT', 'EViTKeepRateHook', 'MPViT', 'Shunted']
