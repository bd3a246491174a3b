"""Which head of a ScopeViT looks how far: weights of its attention, computed again from what the layers were given.

Shape legend: C channels, H W height and width of a stage's map, h heads, d = C/h head dimension,
Q queries, M keys, G groups of T tokens. Positions are rows and columns of tokens, whose unit is the stage's stride.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..apis.model import backbone_of
from ..apis.view import View
from ..models.backbones import ScopeViT
from ..models.layers import SCOPES, GlobalScaleDilatedAttention, MultiScaleSelfAttention
from ..models.layers.gsda import group
from ..models.ops.keys import limit_keys
from ..models.ops.positions import layout, padded_keys, position_index
from ..utils.errors import UserError

GSDA = 'GSDA'
MOST_QUERIES = 1024
"""Of a layer, evenly spread, over which distances are averaged."""


@dataclass(frozen=True)
class Attention:
    """What some tokens of a layer attend to.

    Attributes:
        weights: (h, Q, M); a query's sum to 1.
        keys: Where the keys lie, (Q, M, 2), or (1, M, 2) if all queries have the same.
        is_real: Which keys there are, bool (Q, M) or (1, M): a group that reaches beyond the map has others.
    """

    weights: Tensor
    keys: Tensor
    is_real: Tensor


@dataclass(frozen=True)
class Layer:
    """An attention layer of a ScopeViT and the tokens that it was given.

    Attributes:
        stage, block: Counted from 1.
        scopes: Of each head: '7x7', '5x5', '3x3', or 'GSDA'.
        stride: Pixels of the network's input between two tokens.
        x: (1, H, W, C).
    """

    stage: int
    block: int
    scopes: tuple[str, ...]
    stride: int
    attn: nn.Module
    x: Tensor

    def attend(self, queries: Tensor) -> Attention:
        """What tokens attend to, given by their numbers (Q,) row by row."""
        compute = mssa_attention if isinstance(self.attn, MultiScaleSelfAttention) else gsda_attention
        with torch.no_grad():
            found = compute(self.attn, self.x, queries.to(self.x.device))  # type: ignore[arg-type]
        return Attention(found.weights.float().cpu(), found.keys.cpu(), found.is_real.cpu())

    def positions(self, queries: Tensor) -> Tensor:
        """Rows and columns of tokens, (Q, 2)."""
        width = self.x.shape[2]
        return torch.stack([queries // width, queries % width], dim=1)

    def token_at(self, point: np.ndarray) -> Tensor:
        """Number of the token nearest to a row and column of the network's input, (1,)."""
        # A convolution of stride 2 and kernel 3 keeps every second centre, from the first on.
        sides = np.array(self.x.shape[1:3])
        row, col = (point / self.stride).round().astype(int).clip(0, sides - 1)
        return torch.tensor([row * sides[1] + col])

    def distances(self, scale: np.ndarray) -> tuple[Tensor, float]:
        """Mean distance of each head's queries from their keys, weighted by attention, (h,), and with equal weights.

        Args:
            scale: Pixels of the image that a row and a column of the network's input cover.
        """
        tokens = self.x.shape[1] * self.x.shape[2]
        queries = torch.linspace(0, tokens - 1, min(tokens, MOST_QUERIES)).round().long()
        found = self.attend(queries)
        away = (found.keys - self.positions(queries)[:, None]) * torch.as_tensor(scale * self.stride)
        # (Q, M, 2) -> (Q, M)
        length = away.norm(dim=-1).float()
        equal = (length * found.is_real).sum(1) / found.is_real.sum(1)
        return (found.weights * length).sum(-1).mean(-1), float(equal.mean())


def mssa_attention(attn: MultiScaleSelfAttention, x: Tensor, queries: Tensor) -> Attention:
    """Weights of MSSA for some tokens of its input, (1, H, W, C). In the deploy form, too."""
    _, H, W, C = x.shape
    h, d = attn.num_heads, C // attn.num_heads
    x = attn.cpe(x.permute(0, 3, 1, 2))
    # (1, C, H, W) -> (Q, C) -> (h, Q, d)
    q = attn.query(x.permute(0, 2, 3, 1).flatten(0, 2)[queries]).reshape(-1, h, d).transpose(0, 1)
    # (1, C, H', W') -> (M, 2C) -> (h, M, d)
    k = attn.key_value(attn.embed_scopes(x).permute(0, 2, 3, 1).flatten(0, 2))[:, :C].reshape(-1, h, d).transpose(0, 1)
    weights = (q @ k.transpose(1, 2) * d**-0.5).softmax(dim=-1)

    conv: Any = next(iter(attn.scopes.values()))  # all have the same centres
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in (H, W)]
    centres = [torch.arange(side, device=x.device) * stride - padding + (kernel - 1) / 2 for side in sides]
    keys = torch.stack(torch.meshgrid(*centres, indexing='ij'))[None]
    keys = keys if attn.max_keys is None else limit_keys(keys, attn.max_keys)
    # (1, 2, H', W') -> (1, M, 2)
    keys = keys.flatten(2).transpose(1, 2)
    return Attention(weights, keys, torch.ones_like(keys[..., 0], dtype=torch.bool))


def gsda_attention(attn: GlobalScaleDilatedAttention, x: Tensor, queries: Tensor) -> Attention:
    """Weights of GSDA for some tokens of its input, (1, H, W, C), over the T keys of their groups. In both forms."""
    _, H, W, C = x.shape
    h, d, g = attn.num_heads, C // attn.num_heads, attn.grid_size
    rows, cols, sh, sw = layout(H, W, g)
    row, col = queries // W, queries % W
    own = row % sh * sw + col % sw
    slot = row // sh * cols + col // sw
    # (1, G, T, 3C) -> (Q, T, 3, h, d)
    q, k, _ = attn.qkv(group(x, g))[0, own].reshape(len(queries), rows * cols, 3, h, d).unbind(2)
    # (Q, T, h, d) -> (Q, h, d), the queries' own -> (Q, h, T)
    q = q[torch.arange(len(queries), device=x.device), slot]
    logits = torch.einsum('qhd,qthd->qht', q, k) * d**-0.5
    # ((2g-1)**2, h) -> (T, T, h) -> (Q, h, T)
    logits = logits + attn.rel_pos(x)[position_index(x, rows, cols, g)][slot].transpose(1, 2)
    is_padded = padded_keys(H, W, g, x.device)[own, 0, 0]
    weights = logits.masked_fill(is_padded[:, None], float('-inf')).softmax(dim=-1).transpose(0, 1)
    places = torch.meshgrid(torch.arange(H, device=x.device), torch.arange(W, device=x.device), indexing='ij')
    # (1, H, W, 2) -> (G, T, 2) -> (Q, T, 2)
    return Attention(weights, group(torch.stack(places, dim=-1)[None], g)[0, own], ~is_padded)


def scopevit_of(model: nn.Module) -> ScopeViT:
    """The backbone of a model.

    Raises:
        UserError: If it is none, or not a ScopeViT.
    """
    _, backbone = backbone_of(model)
    if not isinstance(backbone, ScopeViT):
        raise UserError(
            f'the backbone is a {type(backbone).__name__}, but what is drawn here is inside ScopeViT; '
            'tools/swap_backbone.py puts it into the config'
        )
    return backbone


@contextmanager
def calls_of(modules: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """The calls of these modules in the block, each with what it was given and returned, in the order they ended in."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, args, output: calls.append((m, args[0], output))) for m in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def attention_layers(backbone: ScopeViT, inputs: Tensor) -> list[Layer]:
    """Run a backbone in evaluation, as it is, on one preprocessed image (1, C, H, W): its attention layers in order."""
    kinds = (MultiScaleSelfAttention, GlobalScaleDilatedAttention)
    modules = {name: module for name, module in backbone.named_modules() if isinstance(module, kinds)}
    with calls_of(modules.values()) as calls, torch.no_grad():
        backbone(inputs)
    given = {module: x for module, x, _ in calls}
    found = []
    for name, module in modules.items():
        _, stage, _, block, *_ = name.split('.')
        counts = backbone.arch.scope_heads[int(stage)]
        scopes = [f'{k}x{k}' for k, count in zip(SCOPES, counts) for _ in range(count)]
        if isinstance(module, GlobalScaleDilatedAttention):
            scopes = [GSDA] * module.num_heads
        stride = 2 ** (int(stage) + 2)
        found.append(Layer(int(stage) + 1, int(block) + 1, tuple(scopes), stride, module, given[module]))
    return found


def head_distances(layers: Iterable[Layer], view: View) -> list[dict]:
    """Mean attention distance of every head, in pixels of the image: one dict each, ready for JSON."""
    found = []
    for layer in layers:
        distances, equal = layer.distances(view.scale)
        for head, (scope, distance) in enumerate(zip(layer.scopes, distances.tolist()), 1):
            where = dict(stage=layer.stage, block=layer.block, scope=scope, head=head)
            found.append(dict(where, distance=distance, equal_weights=equal))
    return found


def mean_over_images(images: list[list[dict]]) -> list[dict]:
    """The mean of :func:`head_distances` of several images."""
    return [
        {**heads[0], **{key: float(np.mean([head[key] for head in heads])) for key in ('distance', 'equal_weights')}}
        for heads in zip(*images)
    ]


def by_scope(heads: Iterable[dict]) -> dict[tuple[int, str], tuple[float, float]]:
    """Mean distance, and that with equal weights, of the heads of each stage and scope."""
    gathered = defaultdict(list)
    for head in heads:
        gathered[head['stage'], head['scope']].append((head['distance'], head['equal_weights']))
    return {key: tuple(np.mean(values, axis=0).tolist()) for key, values in gathered.items()}
