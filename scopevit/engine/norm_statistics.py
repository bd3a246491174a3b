"""Batch norms' statistics, computed again for the weights that a model has."""

from itertools import islice
from typing import Any

from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ..utils.wrappers import unwrap


class _TrainingForward(nn.Module):
    """A toolbox's model as a training step runs it, preprocessing and losses included."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict) -> None:
        self.model(**self.model.data_preprocessor(batch, True), mode='loss')


def recompute_norms(runner: Runner, images: int) -> tuple[int, int]:
    """Replace the running statistics of a model's batch norms by those of its training data, by torch's ``update_bn``.

    Each is the mean over batches. Norms that do not change in training (``norm_eval``) keep what they have.

    Args:
        runner: A runner whose model has its weights, and whose training data have been loaded.
        images: How many to run: whole batches, one epoch at most.

    Returns:
        How many norms have new statistics, and how many batches these are the mean of.
    """
    model = unwrap(runner.model)
    model.train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    kept = {
        norm: {key: value.clone() for key, value in norm.state_dict().items()} for norm in norms if not norm.training
    }
    loader = runner.train_dataloader
    size = loader.batch_size or loader.batch_sampler.batch_size
    # A loop that counts iterations has begun to draw; beginning again would end an infinite sampler.
    begun = getattr(runner.train_loop, 'dataloader_iterator', loader)
    count = min(max(images // size, 1), len(loader))
    update_bn(islice(begun, count), _TrainingForward(model))
    for norm, state in kept.items():
        norm.load_state_dict(state)
    return len(norms) - len(kept), count
