from .backbones import ScopeViT

__all__ = ['ScopeViT']
