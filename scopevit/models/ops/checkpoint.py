"""Computing a block again in the backward pass instead of storing its activations."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, computed again in the backward pass. A compiler chooses itself what to compute again."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return block(x)
    # What the first run happens in, and the second.
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _FrozenStatistics(block)))


class _FrozenStatistics:
    """Keeps batch norms from counting a batch twice when checkpointing runs it again."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(m.momentum, m.num_batches_tracked) for m in self.norms]
        for norm, (_, counter) in zip(self.norms, self.kept):
            # The counter must stay a tensor for SyncBatchNorm: it counts in a copy.
            norm.momentum, norm.num_batches_tracked = 0.0, None if counter is None else counter.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, counter) in zip(self.norms, self.kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter
