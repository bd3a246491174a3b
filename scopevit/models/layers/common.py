"""Layers that both kinds of ScopeViT block share.

Shape legend: B batch, C channels, H W height and width of a stage's map. Blocks work on tokens
(B, H, W, C); convolutions see them as maps (B, C, H, W), a channels-last view of the same memory.

``linear(layer, x)``, ``convolution``, ``relu`` and ``layer_norm`` are ``layer(x)``, ``close_branch`` is
``x + drop_path(branch * gamma)`` and ``mlp_branch`` ``scale(x, mlp(norm(x)))``, computed faster where there is a way
and the layers are of the classes named last.
"""

import torch
from torch import Tensor, nn

from ..ops.linear import convolution, linear, relu
from ..ops.rows import close_branch, layer_norm, mlp_branch


class PatchEmbed(nn.Sequential):
    """Halve the resolution (the stem: quarter it) and set the stage's width.

    (B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2)), the stem ceil(ceil(H/2)/2) likewise.
    """

    def __init__(self, in_channels: int, out_channels: int, stem: bool) -> None:
        layers: list[nn.Module] = []
        if stem:
            hidden = out_channels // 2
            layers += [nn.Conv2d(in_channels, hidden, 3, stride=2, padding=1), nn.BatchNorm2d(hidden), nn.GELU()]
            in_channels = hidden
        layers += [nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), nn.BatchNorm2d(out_channels)]
        super().__init__(*layers)


class ConvNormAct(nn.Sequential):
    """Convolution, without bias, batch norm and perhaps ReLU. (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1, act: bool = True) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), *([nn.ReLU()] if act else []))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, *act = self
        x = norm(convolution(conv, x))
        return relu(act[0], norm, x) if act else x


class DropPath(nn.Module):
    """Stochastic depth: while training, drop a residual branch for whole samples.

    Kept branches are divided by the keeping probability, so the expectation stays the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def factors(self, x: Tensor) -> Tensor | None:
        """What to multiply each sample of ``x`` by: (B,) of zeros and 1 / keeping probability; None for 1."""
        if not self.training or self.rate == 0.0:
            return None
        keep = 1.0 - self.rate
        return torch.bernoulli(x.new_full((x.shape[0],), keep)) / keep  # not in place, for vmap draws for each image

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        factors = self.factors(x)
        return x if factors is None else x * factors.view(-1, *(1,) * (x.ndim - 1))

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
        return close_branch(x, branch, self.gamma, self.drop_path, DropPath)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last dimension. (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1: nn.Module = nn.Linear(dim, hidden_dim)
        self.act: nn.Module = nn.GELU()
        self.fc2: nn.Module = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.fc2, self.act(linear(self.fc1, x)))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each a residual branch with LayerScale and stochastic depth.

    (B, H, W, C) -> (B, H, W, C).
    """

    def __init__(self, attn: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.ls1 = LayerScale(dim, drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ls1(x, self.attn(layer_norm(self.norm1, x)))
        return mlp_branch(x, self.norm2, self.mlp, self.ls2, kinds=(Mlp, LayerScale, DropPath))
