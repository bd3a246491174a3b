from .evaluation import DumpPredictions
from .hooks import PretrainedBackboneHook, SyncBuffersHook
from .loading import PlacedBatchSampler
from .optim import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .saving import CheckpointHook

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckpointHook',
    'DumpPredictions',
    'LayerDecayOptimWrapperConstructor',
    'PlacedBatchSampler',
    'PretrainedBackboneHook',
    'SyncBuffersHook',
]
