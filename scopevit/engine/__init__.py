from .evaluation import DumpPredictions
from .hooks import CheckpointHook, PretrainedBackboneHook, SyncBuffersHook
from .loading import PlacedBatchSampler
from .optim import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckpointHook',
    'DumpPredictions',
    'LayerDecayOptimWrapperConstructor',
    'PlacedBatchSampler',
    'PretrainedBackboneHook',
    'SyncBuffersHook',
]
