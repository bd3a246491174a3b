from .hooks import PretrainedBackboneHook
from .optim import CPUAmpOptimWrapper

__all__ = ['CPUAmpOptimWrapper', 'PretrainedBackboneHook']
