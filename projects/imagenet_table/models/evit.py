"""EViT, a vision transformer that drops or fuses the tokens its class token pays least attention to.

Paper: "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations".
Shape legend: B batch, N tokens with the class token, C channels, h heads, d width of a head.
"""

import math
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModule, is_model_wrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F

from scopevit.models.layers import Mlp
from scopevit.utils.errors import UserError

from .layers import Block, attend, check_heads, init_layer


class Attention(nn.Module):
    """Attention between all tokens. (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(*self.qkv(x).chunk(3, dim=-1), num_heads=self.num_heads))

    def with_scores(self, x: Tensor) -> tuple:
        """The same, and the attention (B, N - 1) that the class token pays the others, averaged over heads."""
        # (B, N, C) -> (B, h, N, d)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights[:, :, 0, 1:].mean(dim=1)


def reorganise(x: Tensor, scores: Tensor, keep_rate: float, fuse: bool) -> Tensor:
    """Keep the class token and the best of the others, best first.

    Args:
        x: Tokens (B, N, C), the class token first.
        scores: (B, N - 1), one for each token but the class token.
        keep_rate: ceil(keep_rate * (N - 1)) tokens are kept.
        fuse: Whether to append the sum of the others, weighted by their scores.
    """
    num_kept = math.ceil(keep_rate * scores.shape[1])
    if num_kept >= scores.shape[1]:
        return x
    patches = x[:, 1:]
    kept = scores.topk(num_kept, dim=1).indices
    parts = [x[:, :1], patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[2]))]
    if fuse:
        weights = scores.scatter(1, kept, 0.0)
        parts.append((patches * weights.unsqueeze(-1)).sum(dim=1, keepdim=True))
    return torch.cat(parts, dim=1)


class EViTBlock(Block):
    """With a keep rate below 1, tokens are reorganised between attention and MLP. (B, N, C) -> (B, M, C)."""

    def forward(self, x: Tensor, keep_rate: float = 1.0, fuse: bool = False) -> Tensor:
        if keep_rate >= 1:
            return super().forward(x)
        attended, scores = self.attn.with_scores(self.norm1(x))
        x = reorganise(x + self.drop_path(attended), scores, keep_rate, fuse)
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class EViT(BaseModule):
    """EViT, of "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations".

    It is DeiT with tokens reorganised in a few blocks, and returns the class token: tokens are no
    map any more. In training :class:`EViTKeepRateHook` can lower the keep rate bit by bit. Weights
    begin as those of mmpretrain's DeiT.

    Args:
        arch: 'small' or a dict with ``embed_dims``, ``depth``, ``num_heads`` and ``mlp_ratio``.
        img_size: Side of the images whose grid of patches the position embedding has; it is
            resized to any other grid.
        patch_size: Side of a patch; what is left of an image at the right and the bottom is not seen.
        keep_rate: Part of the tokens that is kept by each reorganisation, above 0; 1 keeps all.
        fuse_tokens: Whether the others are summed up in one more token, weighted by their
            scores, or dropped.
        reorganise_at: The blocks that reorganise, counted from 0.
        in_channels: Channels of the input image.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        init_cfg: MMEngine initialisation, done after the default one.

    Attributes:
        training_keep_rate: The keep rate in training, ``keep_rate`` unless a hook sets it.

    Raises:
        ValueError: For an unknown or incomplete ``arch``, a keep rate or block out of range, and (in
            forward) an image smaller than a patch.
    """

    arch_settings = {'small': dict(embed_dims=384, depth=12, num_heads=6, mlp_ratio=4)}

    def __init__(
        self,
        arch: str | dict = 'small',
        *,
        img_size: int = 224,
        patch_size: int = 16,
        keep_rate: float = 0.6,
        fuse_tokens: bool = True,
        reorganise_at: Sequence[int] = (3, 6, 9),
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not isinstance(arch, dict) and arch not in self.arch_settings:
            raise ValueError(f'unknown arch {arch!r} of EViT: choose {", ".join(self.arch_settings)}, or give a dict')
        settings = arch if isinstance(arch, dict) else self.arch_settings[arch]
        if sorted(settings) != sorted(self.arch_settings['small']):
            raise ValueError(f'arch dict of EViT: it must have {", ".join(self.arch_settings["small"])}, but is {arch}')
        dim, depth = settings['embed_dims'], settings['depth']
        if not 0 < keep_rate <= 1:
            raise ValueError(f'keep_rate must be above 0 and at most 1, but is {keep_rate}')
        if not set(reorganise_at) <= set(range(depth)):
            raise ValueError(f'reorganise_at must be blocks from 0 to {depth - 1}, but is {reorganise_at}')
        self.keep_rate = self.training_keep_rate = keep_rate
        self.fuse_tokens = fuse_tokens
        self.reorganise_at = tuple(reorganise_at)
        self.grid_size = img_size // patch_size
        self.patch_embed = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid_size**2, dim))
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.ModuleList(
            EViTBlock(dim, Attention(dim, settings['num_heads']), Mlp(dim, int(dim * settings['mlp_ratio'])), rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._begin_as_deit()

    def _begin_as_deit(self) -> None:
        """As mmpretrain's DeiT: MLPs of Xavier, other linear layers normal, convolution as torch makes it."""
        self.blocks.apply(init_layer)
        for block in self.blocks:
            for linear in (block.mlp.fc1, block.mlp.fc2):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.normal_(linear.bias, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> tuple:
        """Image batch (B, in_channels, H, W) -> the normed class token (B, C), in a tuple."""
        if min(x.shape[2:]) < self.patch_embed.kernel_size[0]:
            raise ValueError(f'EViT takes images of at least one patch, but got {tuple(x.shape)}')
        image = self.patch_embed(x)
        position = self._position(image.shape[2:])
        # (B, C, H, W) -> (B, N, C)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), image.flatten(2).transpose(1, 2)], dim=1) + position
        rate = self.training_keep_rate if self.training else self.keep_rate
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, rate, self.fuse_tokens) if i in self.reorganise_at else block(tokens)
        return (self.norm(tokens[:, 0]),)

    def _position(self, size: Sequence[int]) -> Tensor:
        """Position embedding of a grid, (1, 1 + H * W, C)."""
        if tuple(size) == (self.grid_size, self.grid_size):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        grid = F.interpolate(grid, size=tuple(size), mode='bicubic', align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


@HOOKS.register_module()
class EViTKeepRateHook(Hook):
    """Lower EViT's keep rate in training from 1 to the model's own along a half cosine.

    Args:
        begin: Part of the training before which all tokens are kept.
        end: Part of the training after which the rate stays as it is.

    Raises:
        UserError: If begin and end are no such parts, or the model's backbone is not EViT.
    """

    def __init__(self, begin: float, end: float) -> None:
        if not 0 <= begin < end <= 1:
            raise UserError(f'EViTKeepRateHook: begin and end must be parts of the training, but are {begin} and {end}')
        self.begin = begin
        self.end = end

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = getattr(model, 'backbone', None)
        if not isinstance(backbone, EViT):
            raise UserError(f'EViTKeepRateHook needs an EViT backbone, but it is {type(backbone).__name__}')
        done = (runner.iter / runner.max_iters - self.begin) / (self.end - self.begin)
        part = (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
        backbone.training_keep_rate = backbone.keep_rate + (1 - backbone.keep_rate) * part
