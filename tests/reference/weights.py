"""Weights and inputs from a formula, so that implementations can be compared without files.

At the default initialisation LayerScale is 1e-6 and a broken attention hardly shows; with
these weights every part of the network matters.
"""

import math
import zlib

import numpy as np
import torch


def wave(key, shape):
    """sin(0.7 i + crc32(key) mod 997) for i = 1, 2, ... in C order, in float64."""
    n = math.prod(shape)
    i = np.arange(1, n + 1, dtype=np.float64)
    return torch.from_numpy(np.sin(0.7 * i + zlib.crc32(key.encode()) % 997)).reshape(shape)


def formula_weight(key, shape):
    """The weight of a key of the released checkpoints, in float64."""
    w = wave(key, shape)
    if key.endswith('num_batches_tracked'):
        return torch.zeros((), dtype=torch.long)
    if key.endswith('running_var'):
        return 1 + 0.5 * w
    if key.endswith('running_mean'):
        return 0.1 * w
    if key.endswith('gamma'):
        return 0.5 + 0.1 * w
    if len(shape) == 1:
        return 1 + 0.1 * w if key.endswith('weight') else 0.1 * w
    return w * math.sqrt(2 / math.prod(shape[1:]))


def formula_image(height, width, batch=1, channels=3):
    return wave(f'image{height}x{width}', (batch, channels, height, width))


def fill(model):
    """Give a model the formula's weights under its own keys; returns it."""
    state = model.state_dict()
    model.load_state_dict({key: formula_weight(key, value.shape) for key, value in state.items()})
    return model
