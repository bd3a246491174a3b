"""What a batch needs that a training failed over: full precision, or a second image. That is tried, not guessed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..utils.errors import one_line
from .findings import Finding


def check_batch(runner: Runner, model: nn.Module) -> Iterator[Finding]:
    """A batch of the training data goes through the model, in the precision and of the sizes of this training."""
    loop, wrapper = runner._train_loop, runner.optim_wrapper
    if not isinstance(loop, BaseLoop) or not isinstance(wrapper, OptimWrapper):  # it has not come so far
        return
    loader = loop.dataloader
    sizes = _batch_sizes(loader)
    if 'Amp' in type(wrapper).__name__:
        error = _failure(loader, model, max(sizes), lambda: wrapper.optim_context(model))
        if error and not _failure(loader, model, max(sizes)):
            dtype = str(getattr(wrapper, 'cast_dtype', None) or torch.bfloat16).removeprefix('torch.')
            text = (
                f'a part of this model cannot compute in {dtype}, which mixed precision is here ({one_line(error)}): '
                'leave --amp out, or train on a GPU with --amp-dtype float16'
            )
            yield Finding('error', 'optim_wrapper', text)
    if 1 in sizes and len(loader.dataset) > 1:
        error = _failure(loader, model, 1)
        if error and not _failure(loader, model, 2):
            text = (
                f'a batch of one image fails ({one_line(error)}), one of two does not: set '
                'train_dataloader.batch_size to 2 or more, and train_dataloader.drop_last=True so that no single image '
                'is left over'
            )
            yield Finding('error', 'train_dataloader', text)


def _batch_sizes(loader: DataLoader) -> set[int]:
    """How many images the batches of an epoch have; {2} if that cannot be told."""
    size = getattr(loader, 'batch_size', None)
    if not size:
        return {2}
    rest = 0 if loader.drop_last or not hasattr(loader.sampler, '__len__') else len(loader.sampler) % size
    return {size, rest} - {0}


def _failure(
    loader: DataLoader, model: nn.Module, size: int, context: Callable[[], AbstractContextManager] = nullcontext
) -> Exception | None:
    """What a model raises over a batch of this size; None if nothing."""
    try:
        batch = loader.collate_fn([loader.dataset[i % len(loader.dataset)] for i in range(size)])
        model.train()
        with torch.no_grad(), context():
            model._run_forward(model.data_preprocessor(batch, True), mode='loss')
    except Exception as error:  # that is what was asked for
        return error
    return None
