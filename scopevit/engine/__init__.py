from .evaluation import DumpPredictions
from .hooks import PretrainedBackboneHook, SyncBuffersHook
from .imagenet_variants import CorruptionError, SubsetAccuracy
from .optim import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .placed_sampler import PlacedBatchSampler
from .saving import CheckpointHook

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckpointHook',
    'CorruptionError',
    'DumpPredictions',
    'LayerDecayOptimWrapperConstructor',
    'PlacedBatchSampler',
    'PretrainedBackboneHook',
    'SubsetAccuracy',
    'SyncBuffersHook',
]
