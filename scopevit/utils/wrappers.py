"""Models inside the wrappers that train them in several processes."""

from typing import cast

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model within DistributedDataParallel or another wrapper, or the model itself."""
    return cast(nn.Module, model.module) if is_model_wrapper(model) else model
