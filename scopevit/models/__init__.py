from . import ops
from .backbones import ScopeViT
from .necks import LevelAdapter

__all__ = ['LevelAdapter', 'ScopeViT', 'ops']
