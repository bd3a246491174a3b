"""Mixing methods for mmpretrain, registered when this is imported."""

from .attentive import AttentiveMix
from .automix import AutoMixClassifier, MixBlock
from .manifold import ManifoldMix
from .salient import SaliencyMix
from .shapes import FMix, GridMix, SmoothMix
from .stages import MixingHook

__all__ = [
    'AttentiveMix',
    'AutoMixClassifier',
    'FMix',
    'GridMix',
    'ManifoldMix',
    'MixBlock',
    'MixingHook',
    'SaliencyMix',
    'SmoothMix',
]
