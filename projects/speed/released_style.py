"""ScopeViT computed as the paper's released code computes it: the baseline of our timings.

The same weights and the same function as :class:`scopevit.models.ScopeViT`, but tokens are
(B, N, C) and maps (B, C, H, W) in that memory order, so every change from one to the other
copies; attention is a product, a softmax and a product; the relative position bias is computed
at every call; nothing is folded. It takes images whose sides are multiples of 256, so that every
stage's map divides by the grid of global attention.

    python tools/analysis/benchmark.py projects/speed/released_style.py:tiny@256 ...

Shape legend: B batch, N = H*W tokens, C channels, h heads, d = C/h.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scopevit.models import ScopeViT
from scopevit.models.ops import positions
from scopevit.utils.errors import UserError


class ReleasedStyleScopeViT(nn.Module):
    """Image (B, 3, H, W) -> one map (B, C_i, H_i, W_i) per out index.

    Args:
        backbone: Whose modules and weights are used.
    """

    def __init__(self, backbone: ScopeViT) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple:
        height, width = x.shape[2:]
        # A multiple of the grid on the last map is one on all.
        multiple = self.backbone.stages[-1].blocks[0].gsda.attn.grid_size * self.backbone.feature_strides[-1]
        if height % multiple or width % multiple:
            raise UserError(
                f'the released style takes images whose sides are multiples of {multiple}, but got {height}x{width}'
            )
        features = []
        for i, stage in enumerate(self.backbone.stages):
            x = stage.patch_embed(x)
            size = x.shape[2:]
            x = tokens(x)
            for block in stage.blocks:
                for part, attention in ((block.mssa, mssa), (block.gsda, gsda)):
                    x = x + part.ls1.drop_path(part.ls1.gamma * attention(part.attn, part.norm1(x), *size))
                    x = x + part.ls2.drop_path(part.ls2.gamma * mlp(part.mlp, part.norm2(x)))
            x = stage.norm(image(x, *size))
            if i in self.backbone.out_indices:
                features.append(x)
        return tuple(features)

    def switch_to_deploy(self) -> None:
        raise UserError('the released style has no form for deployment')


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2).contiguous()


def image(x: Tensor, height: int, width: int) -> Tensor:
    """(B, N, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], -1, height, width).contiguous()


def attend(q: Tensor, k: Tensor, v: Tensor, bias=None) -> Tensor:
    """Attention of (..., T, d) by products and softmax."""
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(dim=-1) @ v


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """As nn.Linear computes it; our layers may choose another operator."""
    return F.linear(x, layer.weight, layer.bias)


def mlp(layers: nn.Module, x: Tensor) -> Tensor:
    return linear(layers.fc2, F.gelu(linear(layers.fc1, x)))


def positional_encoding(cpe: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W), its 1x1 convolutions computed as convolutions."""
    y = cpe.depthwise(F.relu_(cpe.expand[1](F.conv2d(x, cpe.expand[0].weight))))
    return x + cpe.project[1](F.conv2d(y, cpe.project[0].weight))


def mssa(attn: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    B, N, C = x.shape
    h = attn.num_heads
    x = positional_encoding(attn.cpe, image(x, height, width))
    q = linear(attn.query, tokens(x)).reshape(B, N, h, C // h).permute(0, 2, 1, 3)
    parts = x.split([conv.in_channels for conv in attn.scopes.values()], dim=1)
    embedded = torch.cat([conv(part) for conv, part in zip(attn.scopes.values(), parts)], dim=1)
    kv = linear(attn.key_value, tokens(embedded)).reshape(B, -1, 2, h, C // h).permute(2, 0, 3, 1, 4)
    x = attend(q, kv[0], kv[1])
    return linear(attn.proj, x.transpose(1, 2).reshape(B, N, C))


def gsda(attn: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    B, N, C = x.shape
    g, h = attn.grid_size, attn.num_heads
    sh, sw = height // g, width // g
    # (B, N, C) -> (B, sh, sw, g*g, C)
    x = x.reshape(B, g, sh, g, sw, C).permute(0, 2, 4, 1, 3, 5).reshape(B, sh * sw, g * g, C)
    qkv = linear(attn.qkv, x).reshape(B, sh * sw, g * g, 3, h, C // h).permute(3, 0, 1, 4, 2, 5)
    x = attend(qkv[0], qkv[1], qkv[2], position_bias(attn.rel_pos, x))
    x = linear(attn.proj, x.transpose(2, 3).reshape(B, sh * sw, g * g, C))
    # (B, sh*sw, g*g, C) -> (B, N, C)
    return x.reshape(B, sh, sw, g, g, C).permute(0, 3, 1, 4, 2, 5).reshape(B, N, C)


def position_bias(rel_pos: nn.Module, x: Tensor) -> Tensor:
    """(h, g*g, g*g), of which the released code keeps nothing."""
    g = rel_pos.grid_size
    offsets = positions.log_offsets.__wrapped__(x, g, x.dtype)
    table = rel_pos.fc2(rel_pos.drop(rel_pos.act(rel_pos.fc1(offsets))))
    return table[positions.position_index(x, g, g, g)].permute(2, 0, 1)


def xtiny(out_indices: Sequence[int] = (3,)) -> nn.Module:
    return ReleasedStyleScopeViT(ScopeViT('xtiny', out_indices=out_indices))


def tiny(out_indices: Sequence[int] = (3,)) -> nn.Module:
    return ReleasedStyleScopeViT(ScopeViT('tiny', out_indices=out_indices))


def small(out_indices: Sequence[int] = (3,)) -> nn.Module:
    return ReleasedStyleScopeViT(ScopeViT('small', out_indices=out_indices))
