"""The deploy form: the same function for inference, with less to compute. It is made of a trained model.

Batch norms go into the convolutions before them, layer scales into the linear layers before them, and the MLP of
GSDA's position bias becomes the table of its results. What then follows a linear layer, an activation or the
addition of the residual, goes to it: on CPUs oneDNN computes both in one pass. The scopes of MSSA become one
convolution, smaller kernels framed with zeros: it multiplies more, but moves less memory, and takes half the time.

Shape legend: as in backbones/scopevit.py.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .layers import (
    ConditionalPositionalEncoding,
    LayerScale,
    MultiScaleSelfAttention,
    PatchEmbed,
    RelativePositionBias,
    TransformerBlock,
)
from .ops.calls import is_plain_call
from .ops.linear import linear
from .ops.rows import layer_norm


class ActivatedLinear(nn.Module):
    """A linear layer and the activation after it. (B, H, W, C_in) -> (B, H, W, C_out)."""

    def __init__(self, layer: nn.Linear, activation: str) -> None:
        super().__init__()
        self.linear = layer
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.linear, x, activation=self.activation)

    def extra_repr(self) -> str:
        return f'activation={self.activation}'


class FoldedBranch(nn.Module):
    """A residual branch whose last layer scales and adds. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, norm: nn.Module, body: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        self.body = body
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.last, self.body(layer_norm(self.norm, x)), residual=x)


class FoldedPositionalEncoding(nn.Module):
    """ConditionalPositionalEncoding without its batch norms. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, cpe: ConditionalPositionalEncoding) -> None:
        super().__init__()
        expand, depthwise, project = (
            fuse_conv_bn_eval(part[0], part[1]) for part in (cpe.expand, cpe.depthwise, cpe.project)
        )
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

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer('table', table)

    def forward(self, x: Tensor) -> Tensor:
        return self.table


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Bring all ScopeViT blocks and patch embeddings of a model into the deploy form, in place."""
    for module in list(model.modules()):
        if isinstance(module, PatchEmbed):
            _fold_patch_embed(module)
        elif isinstance(module, MultiScaleSelfAttention):
            module.cpe = FoldedPositionalEncoding(module.cpe)
            module.scopes = nn.ModuleDict({'merged': _merge_scopes(list(module.scopes.values()))})
        for name, child in list(module.named_children()):
            if isinstance(child, RelativePositionBias):
                setattr(module, name, FoldedPositionBias(child(child.fc1.weight)))
            elif isinstance(child, TransformerBlock):
                setattr(module, name, _fold_block(child))


def _fold_block(block: TransformerBlock) -> nn.Sequential:
    attention = FoldedBranch(block.norm1, block.attn, _scaled(block.attn.proj, block.ls1))
    mlp = FoldedBranch(block.norm2, block.mlp, _scaled(block.mlp.fc2, block.ls2))
    block.attn.proj = block.mlp.fc2 = block.mlp.act = nn.Identity()
    block.mlp.fc1 = ActivatedLinear(block.mlp.fc1, 'gelu')
    return nn.Sequential(OrderedDict(attn=attention, mlp=mlp))


def _fold_patch_embed(embed: PatchEmbed) -> None:
    for i, layer in enumerate(embed):
        if isinstance(layer, nn.Conv2d):
            embed[i], embed[i + 1] = fuse_conv_bn_eval(layer, embed[i + 1]), nn.Identity()


def _merge_scopes(convs: list[nn.Conv2d]) -> nn.Conv2d:
    """One convolution with the largest of the kernels, from whose size those of all others differ by an even number."""
    first, frames = convs[0], [(convs[0].kernel_size[0] - conv.kernel_size[0]) // 2 for conv in convs]
    weight = torch.cat([F.pad(conv.weight, (n, n, n, n)) for conv, n in zip(convs, frames)])
    options = dict(stride=first.stride, padding=first.padding, groups=len(weight), bias=False)
    merged = nn.Conv2d(len(weight), len(weight), first.kernel_size, device='meta', **options)
    merged.weight = nn.Parameter(weight)
    return merged


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with these weights: (C_out, C_in) and (C_out,)."""
    layer = nn.Linear(*reversed(weight.shape), device='meta')
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _scaled(layer: nn.Linear, scale: LayerScale) -> nn.Linear:
    return _linear(layer.weight * scale.gamma[:, None], layer.bias * scale.gamma)
