"""Small layers that both kinds of ScopeViT block share."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# PyTorch before 2.7 may not tell; there an exported graph serves sizes that need the same padding in GSDA.
is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


class DropPath(nn.Module):
    """Stochastic depth: while training, drop a residual branch for whole samples.

    Kept branches are divided by the keeping probability, so the expectation stays the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.4g}'


class LayerScale(nn.Module):
    """Close a residual branch: scale each channel by a learnt factor, drop whole samples, add.

    (B, H, W, C) twice -> (B, H, W, C).
    """

    def __init__(self, dim: int, drop_path: float = 0.0, init_value: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_value))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.gamma is None:
            return x + branch
        scale = self.gamma
        if self.training and self.drop_path.rate:
            scale = self.drop_path(scale.expand(x.shape[0], 1, 1, -1))  # a dropped sample's factors are 0
        return torch.addcmul(x, branch, scale)

    @torch.no_grad()
    def fold_into(self, linear: nn.Linear) -> None:
        """Let the branch's last layer do the scaling."""
        linear.weight.mul_(self.gamma[:, None])
        linear.bias.mul_(self.gamma)
        self.gamma = None


def fold_batch_norm(layers: nn.Sequential, index: int) -> None:
    """Fold the batch norm after a convolution into it, as both are in evaluation."""
    layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1])
    layers[index + 1] = nn.Identity()


class Mlp(nn.Sequential):
    """Linear, exact GELU, Linear on the last dimension."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
