"""How operators are computed where the packages installed bring none of their own."""

from .mmcv_finder import MissingOperator, offer_mmcv_operators

offer_mmcv_operators()

__all__ = ['MissingOperator']
