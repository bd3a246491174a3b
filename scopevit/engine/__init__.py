from .hooks import PretrainedBackboneHook
from .optim import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = ['CPUAmpOptimWrapper', 'LayerDecayOptimWrapperConstructor', 'PretrainedBackboneHook']
