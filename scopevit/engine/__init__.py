from .evaluation import DumpPredictions
from .hooks import PretrainedBackboneHook, SyncBuffersHook
from .optim import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = [
    'CPUAmpOptimWrapper',
    'DumpPredictions',
    'LayerDecayOptimWrapperConstructor',
    'PretrainedBackboneHook',
    'SyncBuffersHook',
]
