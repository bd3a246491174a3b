from .scopevit import ScopeViT

__all__ = ['ScopeViT']
