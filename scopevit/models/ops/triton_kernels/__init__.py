"""Kernels for NVIDIA GPUs, written in Triton; gpu.py registers them as operators. Imported when first called."""

import torch
from torch import Tensor


def multiprocessors(x: Tensor) -> int:
    """Of the GPU that a tensor is on; 1 where the interpreter runs the kernels."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
