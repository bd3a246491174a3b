"""Kernels for NVIDIA GPUs, written in Triton; gpu.py registers them as operators. Imported when first called."""
