"""What is computed row by row, channels of one token at a time: layer norm, MLP, the closing of a residual branch."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from . import gpu
from .calls import is_plain_layer


def layer_norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Call an nn.LayerNorm, or what a tool has put in its place; on GPUs by a kernel for narrow rows."""
    if gpu.serves_rows(x) and is_plain_layer(layer, nn.LayerNorm) and _is_usual(layer, x):
        # Under autocast of its type, as a linear layer takes it.
        return torch.ops.scopevit.layer_norm(x, layer.weight, layer.bias, layer.eps, gpu.product_type(x))
    return layer(x)


def close_branch(x: Tensor, branch: Tensor, gamma: Tensor, drop_path: nn.Module, kind: type[nn.Module]) -> Tensor:
    """x + drop_path(branch * gamma), by two factors of the branch.

    Args:
        x: (B, H, W, C).
        branch: (B, H, W, C).
        gamma: (C,).
        drop_path: Stochastic depth; called as it is where a tool has replaced it or has hooks on it.
        kind: Its class, whose ``factors`` say what it multiplies each image's branch by.

    Returns:
        (B, H, W, C) of the wider type of ``x`` and ``gamma``.
    """
    if not is_plain_layer(drop_path, kind):
        return x + drop_path(branch * gamma)
    keep = _factors(drop_path, x, gamma)
    if gpu.serves_rows(x):
        return torch.ops.scopevit.close_branch(x, branch, gamma, gamma.new_empty(0) if keep is None else keep)
    scale = gamma if keep is None else gamma * keep.view(-1, 1, 1, 1)
    return torch.addcmul(x, branch, scale)


def _factors(drop_path: nn.Module, x: Tensor, gamma: Tensor) -> Tensor | None:
    """What stochastic depth multiplies each image of ``x`` by, (B,), of the type of weights; None for 1."""
    return cast(Any, drop_path).factors(gamma.expand(x.shape[0], -1))


def mlp_branch(x: Tensor, norm: nn.Module, mlp: Any, scale: Any, kinds: tuple[Any, ...]) -> Tensor:
    """scale(x, mlp(norm(x))), in half types on GPUs by one kernel. (B, H, W, C) -> (B, H, W, C).

    Args:
        x: (B, H, W, C).
        norm: Layer norm.
        mlp: Linear ``fc1``, activation ``act``, linear ``fc2``.
        scale: Closes the branch by its ``gamma`` and ``drop_path``.
        kinds: The classes of ``mlp``, ``scale`` and ``scale.drop_path``. Where a tool has replaced one of these or has
            hooks on it, they are called as they are.
    """
    if (
        gpu.serves(x)
        and is_plain_layer(mlp, kinds[0])
        and is_plain_layer(scale, kinds[1])
        and is_plain_layer(scale.drop_path, kinds[2])
        and fuses_mlp(x, norm, mlp.fc1, mlp.act, mlp.fc2)
    ):
        return fused_mlp(x, norm, mlp.fc1, mlp.fc2, scale.gamma, _factors(scale.drop_path, x, scale.gamma))
    return scale(x, mlp(layer_norm(norm, x)))


def fuses_mlp(x: Tensor, norm: nn.Module, fc1: nn.Module, act: nn.Module, fc2: nn.Module) -> bool:
    """Whether :func:`fused_mlp` computes what these layers do on ``x``, which GPU operators serve: in half types."""
    return (
        is_plain_layer(norm, nn.LayerNorm)
        and is_plain_layer(fc1, nn.Linear)
        and is_plain_layer(act, nn.GELU)
        and is_plain_layer(fc2, nn.Linear)
        and act.approximate == 'none'
        and _is_usual(norm, x)
        and fc1.in_features == fc2.out_features == x.shape[-1]
        and fc1.out_features == fc2.in_features
        and fc1.bias is not None
        and fc2.bias is not None
        and fc1.weight.is_contiguous()
        and fc2.weight.is_contiguous()
        and gpu.serves_mlp(x, fc1.out_features)
    )


def _is_usual(norm: nn.LayerNorm, x: Tensor) -> bool:
    """Whether a layer norm is of the last dimension and has both parameters."""
    return norm.normalized_shape == (x.shape[-1],) and norm.weight is not None and norm.bias is not None


def fused_mlp(
    x: Tensor,
    norm: nn.Module,
    fc1: nn.Module,
    fc2: nn.Module,
    gamma: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """x + fc2(GELU(fc1(norm(x)))) * gamma by one kernel, each image's branch times ``keep``, (B,).

    (B, H, W, C) -> (B, H, W, C); without gamma, where no gradient is wanted, of the type of ``x`` and the products.
    """
    norm, fc1, fc2 = cast(nn.LayerNorm, norm), cast(nn.Linear, fc1), cast(nn.Linear, fc2)
    dtype = gpu.product_type(x)
    none = x.new_empty(0, dtype=dtype)
    weights = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, none if gamma is None else gamma)
    trains = torch.is_grad_enabled() and any(value.requires_grad for value in (x, *weights))
    return torch.ops.scopevit.mlp_branch(x, *weights, none if keep is None else keep, norm.eps, dtype, trains)[0]
