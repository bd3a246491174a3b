"""Small layers that both kinds of ScopeViT block share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..ops import gpu

HAS_ONEDNN = torch.backends.mkldnn.is_available()
HAS_FUSED_LINEAR = HAS_ONEDNN and hasattr(torch.ops.mkldnn, '_linear_pointwise')
FEWEST_IMAGES = 16
"""With a single thread PyTorch leaves a 1x1 convolution to oneDNN only if it is of so many images."""


def is_exporting() -> bool:
    """Whether torch.export traces this call.

    ``torch.compiler.is_exporting`` is True to some versions of torch.compile, too (2.11). PyTorch before 2.7
    does not tell; there an exported graph serves sizes that need the same padding in GSDA.
    """
    return getattr(torch.compiler, '_is_exporting_flag', False)


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
        return x.new_empty(x.shape[0]).bernoulli_(keep) / keep

    def forward(self, x: Tensor) -> Tensor:
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
        factors = self.drop_path.factors(self.gamma.expand(x.shape[0], -1))
        if gpu.serves_rows(x):
            return gpu.close_branch(x, branch, self.gamma, factors)
        scale = self.gamma if factors is None else self.gamma * factors.view(-1, 1, 1, 1)
        return torch.addcmul(x, branch, scale)


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm of the last dimension; on GPUs by a kernel for narrow rows."""

    def forward(self, x: Tensor) -> Tensor:
        if gpu.serves_rows(x):
            return gpu.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer on tokens, (B, H, W, C_in) -> (B, H, W, C_out).

    On CPUs, in float32, it is oneDNN's 1x1 convolution, the same function: MKL, which nn.Linear
    uses, shares products of tall, thin matrices badly among threads, and on AMD's CPUs is half as fast.
    """
    if not (HAS_ONEDNN and x.ndim == 4 and x.dtype == torch.float32 and _runs_eagerly_on_cpu(x)):
        return F.linear(x, weight, bias)
    B, H, W, C = x.shape
    if torch.get_num_threads() == 1 and B < FEWEST_IMAGES:
        if B * H * W % FEWEST_IMAGES or x.numel() == 0:
            return F.linear(x, weight, bias)
        x = x.reshape(FEWEST_IMAGES, 1, -1, C)  # for a linear layer it does not matter where an image ends
    x = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return x.permute(0, 2, 3, 1).reshape(B, H, W, weight.shape[0])


class Linear(nn.Linear):
    """nn.Linear by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class FusedLinear(Linear):
    """Linear with what follows it in the deploy form: an activation, or the addition of a residual.

    In inference on CPUs oneDNN does all in one pass, while the results are in the cache.

    Args:
        weight: (C_out, C_in).
        bias: (C_out,) or None.
        activation: 'none', 'relu' or (exact) 'gelu'.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: str = 'none') -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if _onednn_fuses(x, self.weight):
            linear = torch.ops.mkldnn._linear_pointwise
            if residual is not None:
                return linear.binary(x, residual, self.weight, self.bias, 'add')
            return linear(x, self.weight, self.bias, self.activation, [], 'none')
        x = super().forward(x)
        if residual is not None:
            return residual + x
        return x if self.activation == 'none' else getattr(F, self.activation)(x)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, activation={self.activation}'


def _runs_eagerly_on_cpu(x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and x.device.type == 'cpu'
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def _onednn_fuses(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's fused operators, which know neither gradients nor graphs, serve this call."""
    return (
        HAS_FUSED_LINEAR
        and _runs_eagerly_on_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
    )


def fold_batch_norm(layers: nn.Sequential, index: int) -> None:
    """Fold the batch norm after a convolution into it, as both are in evaluation."""
    layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1])
    layers[index + 1] = nn.Identity()


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last dimension."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor, *residual: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)), *residual)

    def fold(self) -> None:
        """Let the first layer apply the activation; for inference."""
        self.fc1 = FusedLinear(self.fc1.weight, self.fc1.bias, 'gelu')
        self.act = nn.Identity()
