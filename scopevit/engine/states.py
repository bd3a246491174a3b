"""What a run needs, besides what MMEngine saves, to go on as if it had never stopped."""

import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from torch import nn
from torch.distributed import ProcessGroup

from ..utils.wrappers import unwrap

MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the content of another run's checkpoint, or of a damaged one, is met with."""


def random_state() -> dict:
    """The random states of this process, as tensors and plain data."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return dict(
        python=[version, list(numbers), gauss],
        numpy=[kind, np.asarray(keys).tolist(), *rest],
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def set_random_state(state: dict) -> None:
    """Set them as :func:`random_state` found them."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state['numpy']))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def gather_states(
    models: list[nn.Module], state: dict, with_gradients: bool = False, group: ProcessGroup | None = None
) -> list[dict]:
    """Of each process its random states and what else differs between them; all processes have to call it.

    Args:
        models: The model that is trained, and the averages of it.
        state: What :func:`random_state` found.
        with_gradients: Whether an accumulation of gradients has begun.
        group: Of all processes; NCCL's, which is the default on GPUs, would need the GPUs' memory.

    Returns:
        One dict for each process, of tensors and plain data: ``buffers`` of several processes, whose statistics of
        batch norms differ, by model; ``gradients`` by parameter.
    """
    state = dict(state, buffers=[], gradients={})
    if get_world_size() > 1:
        state['buffers'] = [{name: buffer.cpu() for name, buffer in unwrap(m).named_buffers()} for m in models]
    if with_gradients:
        named = unwrap(models[0]).named_parameters()
        state['gradients'] = {name: p.grad.cpu() for name, p in named if p.grad is not None}
    return all_gather_object(state, group)


def restore_states(state: dict, models: list[nn.Module]) -> None:
    """Set what :func:`gather_states` collected of this process.

    Args:
        state: One of the dicts that it returned.
        models: As for that function.
    """
    set_random_state(state)
    with torch.no_grad():
        for model, saved in zip(models, state['buffers']):
            for name, buffer in unwrap(model).named_buffers():
                if name in saved and saved[name].shape == buffer.shape:
                    buffer.copy_(saved[name])
    for name, parameter in unwrap(models[0]).named_parameters():
        if name in state['gradients'] and state['gradients'][name].shape == parameter.shape:
            parameter.grad = state['gradients'][name].to(parameter.device)


def are_states(value: object) -> bool:
    """Whether something that was read is what :func:`gather_states` returned."""
    try:
        return isinstance(value, list) and all(map(_is_state, value))
    except MISFITS:
        return False


def _is_state(state: dict) -> bool:
    version, numbers, gauss = state['python']
    random.Random().setstate((version, tuple(numbers), gauss))
    np.random.RandomState().set_state(tuple(state['numpy']))
    torch.Generator().set_state(state['torch'].cpu())
    tensors = [value for group in (*state['buffers'], state['gradients']) for value in group.values()]
    return all(isinstance(t, torch.Tensor) for t in tensors) and (
        state['cuda'] is None or state['cuda'].dtype == torch.uint8
    )
