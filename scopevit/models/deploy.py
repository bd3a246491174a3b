"""The deploy form: the same function for inference, with less to compute. It is made of a trained model.

Batch norms go into the convolutions before them, layer scales into the linear layers before them, and the MLP of
GSDA's position bias becomes the table of its results. What then follows a linear layer, an activation or the
addition of the residual, goes to it: on CPUs oneDNN computes both in one pass. The scopes of MSSA become one
convolution, smaller kernels framed with zeros: it multiplies more, but moves less memory, and takes half the time.

Shape legend: as in backbones/scopevit.py.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import layers
from .ops import gpu
from .ops.calls import is_plain_call, is_plain_layer
from .ops.linear import linear
from .ops.rows import fused_mlp, fuses_mlp, layer_norm

GELU = nn.GELU()
"""That of an MLP's branch, where its first layer computes it."""


class ActivatedLinear(nn.Module):
    """A linear layer and the activation after it. (B, H, W, C_in) -> (B, H, W, C_out)."""

    def __init__(self, layer: nn.Module, activation: str) -> None:
        super().__init__()
        self.linear = layer
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.linear, x, activation=self.activation)


class FoldedBranch(nn.Module):
    """A residual branch whose last layer scales and adds. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, norm: nn.Module, body: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        self.body = body
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.last, self.body(layer_norm(self.norm, x)), residual=x)


class FoldedMlpBranch(FoldedBranch):
    """That of an MLP: on GPUs one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        mlp = self.body
        is_served = gpu.serves(x) and not torch.is_grad_enabled()
        if is_served and is_plain_layer(mlp, layers.Mlp) and is_plain_layer(mlp.fc1, ActivatedLinear):
            first = mlp.fc1.linear
            if fuses_mlp(x, self.norm, first, GELU, self.last):
                return fused_mlp(x, self.norm, first, self.last)
        return super().forward(x)


class FoldedPositionalEncoding(nn.Module):
    """ConditionalPositionalEncoding without its batch norms. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, cpe: layers.ConditionalPositionalEncoding) -> None:
        super().__init__()
        expand, depthwise, project = (_fuse(part[0], part[1]) for part in (cpe.expand, cpe.depthwise, cpe.project))
        self.expand = ActivatedLinear(_linear(expand.weight.flatten(1), expand.bias), 'relu')
        self.depthwise = depthwise
        self.project = _linear(project.weight.flatten(1), project.bias)

    def forward(self, x: Tensor) -> Tensor:
        # (B, C, H, W) -> (B, H, W, C)
        tokens = x.permute(0, 2, 3, 1)
        # (B, H, W, 4C) -> (B, 4C, H, W)
        hidden = self.depthwise(self.expand(tokens).permute(0, 3, 1, 2))
        hidden = F.relu(hidden, inplace=is_plain_call(hidden) and not torch.is_grad_enabled())
        # (B, 4C, H, W) -> (B, H, W, C) -> (B, C, H, W)
        return linear(self.project, hidden.permute(0, 2, 3, 1), residual=tokens).permute(0, 3, 1, 2)


class FoldedPositionBias(nn.Module):
    """What a RelativePositionBias computes, as a table: ((2g-1)**2, h)."""

    table: Tensor  # a buffer

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer('table', table)

    def forward(self, x: Tensor) -> Tensor:
        return self.table


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Bring all ScopeViT blocks and patch embeddings of a model into the deploy form, in place and in evaluation."""
    for module in list(model.eval().modules()):
        if isinstance(module, layers.PatchEmbed):
            for i, layer in enumerate(module):
                if isinstance(layer, nn.Conv2d):
                    module[i], module[i + 1] = _fuse(layer, module[i + 1]), nn.Identity()
        elif isinstance(module, layers.MultiScaleSelfAttention):
            convs = [conv for conv in module.scopes.values() if isinstance(conv, nn.Conv2d)]
            module.scopes = nn.ModuleDict({'merged': _merge_scopes(convs)})
        for name, child in list(module.named_children()):
            if isinstance(child, layers.RelativePositionBias):
                setattr(module, name, FoldedPositionBias(child(child.fc1.weight)))
            elif isinstance(child, layers.ConditionalPositionalEncoding) and _has_usual_activations(child):
                setattr(module, name, FoldedPositionalEncoding(child))
            elif isinstance(child, layers.TransformerBlock):
                setattr(module, name, _fold_block(child))
    model.eval()  # what is new


def _fold_block(block: layers.TransformerBlock) -> nn.Sequential:
    attn, mlp = block.attn, block.mlp
    last = _scaled(attn.proj, block.ls1), _scaled(mlp.fc2, block.ls2)
    if type(mlp.act) is nn.GELU and mlp.act.approximate == 'none':  # any other one stays as it is
        mlp.fc1, mlp.act = ActivatedLinear(mlp.fc1, 'gelu'), nn.Identity()
    attn.proj = mlp.fc2 = nn.Identity()
    branches = FoldedBranch(block.norm1, attn, last[0]), FoldedMlpBranch(block.norm2, mlp, last[1])
    return nn.Sequential(OrderedDict(zip(('attn', 'mlp'), branches)))


def _has_usual_activations(cpe: layers.ConditionalPositionalEncoding) -> bool:
    return all(type(part[2]) is nn.ReLU for part in (cpe.expand, cpe.depthwise))


def _merge_scopes(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One convolution with the largest of the kernels, which comes first; the others are smaller by even numbers."""
    frames = [(convs[0].kernel_size[0] - conv.kernel_size[0]) // 2 for conv in convs]
    weight = torch.cat([F.pad(conv.weight, (n, n, n, n)) for conv, n in zip(convs, frames)])
    merged = copy.deepcopy(convs[0])
    merged.in_channels = merged.out_channels = merged.groups = len(weight)
    merged.weight = nn.Parameter(weight)
    return merged


def _fuse(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    return fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(_BatchNorm, norm))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device='meta')
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(cast(Tensor, bias))
    return layer


def _scaled(layer: nn.Module | Tensor, scale: layers.LayerScale) -> nn.Linear:
    weight, bias = cast(nn.Linear, layer).weight, cast(nn.Linear, layer).bias
    return _linear(weight * scale.gamma[:, None], bias * scale.gamma)
