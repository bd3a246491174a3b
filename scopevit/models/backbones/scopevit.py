"""ScopeViT, a transformer-CNN hybrid pyramid with multi-scale and global dilated attention.

Shape legend: B batch, C channels, H W height and width of a stage's map, h heads. Blocks
work on tokens (B, H, W, C); convolutions see them as maps (B, C, H, W), a channels-last
view of the same memory.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...registry import MODELS
from ...utils.checkpoint import load_backbone
from ..layers import (
    SCOPES,
    FusedLinear,
    GlobalScaleDilatedAttention,
    LayerNorm,
    LayerScale,
    Mlp,
    MultiScaleSelfAttention,
    fold_batch_norm,
)


class PatchEmbed(nn.Sequential):
    """Halve the resolution (the stem: quarter it) and set the stage's width.

    (B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2)), the stem ceil(ceil(H/2)/2) likewise.
    """

    def __init__(self, in_channels: int, out_channels: int, stem: bool) -> None:
        layers = []
        if stem:
            hidden = out_channels // 2
            layers += [nn.Conv2d(in_channels, hidden, 3, stride=2, padding=1), nn.BatchNorm2d(hidden), nn.GELU()]
            in_channels = hidden
        layers += [nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), nn.BatchNorm2d(out_channels)]
        super().__init__(*layers)

    def fold(self) -> None:
        """Fold the batch norms into the convolutions before them; for inference."""
        for i, layer in enumerate(self):
            if isinstance(layer, nn.Conv2d):
                fold_batch_norm(self, i)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each a residual branch with LayerScale and stochastic depth.

    (B, H, W, C) -> (B, H, W, C).
    """

    def __init__(self, attn: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = attn
        self.ls1 = LayerScale(dim, drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.ls1 is None:  # deploy form: the branches' last layers scale and add
            x = self.attn(self.norm1(x), x)
            return self.mlp(self.norm2(x), x)
        x = self.ls1(x, self.attn(self.norm1(x)))
        return self.ls2(x, self.mlp(self.norm2(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Let the last layer of each branch scale and add; for inference."""
        self.attn.proj = self._closing_linear(self.attn.proj, self.ls1)
        self.mlp.fc2 = self._closing_linear(self.mlp.fc2, self.ls2)
        self.ls1 = self.ls2 = None

    @staticmethod
    def _closing_linear(linear: nn.Linear, scale: LayerScale) -> FusedLinear:
        return FusedLinear(linear.weight * scale.gamma[:, None], linear.bias * scale.gamma)


class ScopeViTBlock(nn.Module):
    """An MSSA block followed by a GSDA block. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(
        self,
        dim: int,
        scope_heads: Sequence[int],
        kv_stride: int,
        grid_size: int,
        mlp_ratio: float,
        cpe_expansion: int,
        drop_path: float,
        rel_pos_drop: float,
        max_keys: int | None,
    ) -> None:
        super().__init__()
        mssa = MultiScaleSelfAttention(dim, scope_heads, kv_stride, cpe_expansion, max_keys)
        gsda = GlobalScaleDilatedAttention(dim, sum(scope_heads), grid_size, rel_pos_drop)
        self.mssa = TransformerBlock(mssa, dim, mlp_ratio, drop_path)
        self.gsda = TransformerBlock(gsda, dim, mlp_ratio, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.gsda(self.mssa(x))


class ScopeViTStage(nn.Module):
    """Patch embedding, blocks, batch norm. (B, C_in, H_in, W_in) -> (B, C, H, W)."""

    def __init__(self, patch_embed: PatchEmbed, blocks: Sequence[ScopeViTBlock], dim: int, with_cp: bool) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(dim)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        # (B, C, H, W) -> (B, H, W, C)
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            # A compiler chooses itself what to compute again.
            if self.with_cp and torch.is_grad_enabled() and not torch.compiler.is_compiling():
                contexts = functools.partial(_checkpoint_contexts, block)
                x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
            else:
                x = block(x)
        # (B, H, W, C) -> (B, C, H, W)
        return self.norm(x.permute(0, 3, 1, 2))


class _FrozenStatistics:
    """Keeps batch norms from counting a batch twice when checkpointing runs it again."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(m.momentum, m.num_batches_tracked) for m in self.norms]
        for norm, (_, counter) in zip(self.norms, self.kept):
            # The counter must stay a tensor for SyncBatchNorm: it counts in a copy.
            norm.momentum, norm.num_batches_tracked = 0.0, None if counter is None else counter.clone()

    def __exit__(self, *_) -> None:
        for norm, (momentum, counter) in zip(self.norms, self.kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _checkpoint_contexts(block: nn.Module) -> tuple:
    return nullcontext(), _FrozenStatistics(block)


def default_scope_heads(num_heads: int) -> tuple:
    """How many of a stage's heads see the 7x7, 5x5 and 3x3 scope.

    Half of them (rounded up) are large, an eighth (at least one of three or more) small.
    2, 4, 8 and 16 heads give the paper's (1, 1, 0), (2, 1, 1), (4, 3, 1) and (8, 6, 2).
    """
    large = (num_heads + 1) // 2
    small = max(num_heads // 8, 1) if num_heads > 2 else 0
    return large, num_heads - large - small, small


def _name_legal_options(init: Callable) -> Callable:
    """Let a misspelt option of ``init`` raise an error that names the legal ones."""
    legal = list(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def wrapper(self, *args, **options):
        unknown = [name for name in options if name not in legal]
        if unknown:
            raise TypeError(
                f'{type(self).__name__} has no option {", ".join(map(repr, unknown))}; its options are '
                f'{", ".join(legal)}'
            )
        init(self, *args, **options)

    return wrapper


@MMENGINE_MODELS.register_module()
@MODELS.register_module()
class ScopeViT(BaseModule):
    """The ScopeViT backbone.

    Paper: "ScopeViT: Scale-Aware Vision Transformer". Stage i of the pyramid has stride
    2**(i + 2). A stage's batch-normed map is both its output and the next stage's input;
    stages after the last one in ``out_indices`` are not built.

    Args:
        arch: 'xtiny', 'tiny', 'small' or a dict with ``embed_dims``, ``depths`` (ScopeViT
            blocks; each is an MSSA and a GSDA block) and ``num_heads``, one value per stage,
            and optionally ``scope_heads`` (per stage the heads of the 7x7, 5x5 and 3x3
            scope; see :func:`default_scope_heads`), ``kv_strides`` (4, 2, then 1),
            ``grid_size`` (8), ``mlp_ratio`` (4) and ``cpe_expansion`` (4).
        in_channels: Channels of the input image.
        out_indices: Stages to return, ascending; negative ones count from the end.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        rel_pos_drop: Dropout rate in the MLP of GSDA's relative position bias.
        frozen_stages: Freeze the first k stages, with embedding and norm; -1 and 0: none.
        norm_eval: Keep batch norms in evaluation mode while training.
        with_cp: Recompute each block in the backward pass instead of storing its activations.
        max_keys: Largest number of keys a query of MSSA attends to; None, the paper's function,
            sets no limit, and MSSA's cost grows with the square of the image's area. Where a map
            gives more, its embedded keys and values are averaged over squares of neighbours. That
            changes results on such maps, needs no other weights, and makes the cost grow with the
            area. 1024 leaves classification at 256x256 as it is.
        deploy: Build the deploy form, for inference; its checkpoints come from
            tools/converters/deploy_model.py. See :meth:`switch_to_deploy`.
        init_cfg: MMEngine initialisation, done after the default one: for a pretrained
            backbone ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Attributes:
        feature_channels: Channels of each returned map.
        feature_strides: Stride of each returned map.

    Raises:
        ValueError: For an unknown or inconsistent ``arch``, an ``out_indices``, a rate or
            ``frozen_stages`` out of range, and (in forward) an input of the wrong shape.
        TypeError: For an option that does not exist.
    """

    arch_settings = {
        'xtiny': dict(embed_dims=(32, 64, 128, 256), depths=(1, 2, 4, 1), num_heads=(2, 4, 8, 16)),
        'tiny': dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 5, 2), num_heads=(2, 4, 8, 16)),
        'small': dict(embed_dims=(64, 128, 256, 512), depths=(1, 2, 3, 1), num_heads=(2, 4, 8, 16)),
    }

    @_name_legal_options
    def __init__(
        self,
        arch: str | dict = 'tiny',
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (3,),
        drop_path_rate: float = 0.0,
        rel_pos_drop: float = 0.125,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        max_keys: int | None = None,
        deploy: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, rate in (('drop_path_rate', drop_path_rate), ('rel_pos_drop', rel_pos_drop)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} must be at least 0 and less than 1, but is {rate}')
        if max_keys is not None and (not isinstance(max_keys, int) or max_keys < 1):
            raise ValueError(f'max_keys must be a whole number of at least 1 or None, but is {max_keys}')
        arch = self._parse_arch(arch)
        depths, dims = arch['depths'], arch['embed_dims']
        self.in_channels = in_channels
        self.out_indices = self._parse_out_indices(out_indices, num_stages=len(depths))
        self.depths = depths[: self.out_indices[-1] + 1]
        if not -1 <= frozen_stages <= len(self.depths):
            raise ValueError(
                f'frozen_stages must lie between -1 and {len(self.depths)}, the number of stages that '
                f'out_indices={self.out_indices} builds, but is {frozen_stages}'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.feature_channels = tuple(dims[i] for i in self.out_indices)
        self.feature_strides = tuple(2 ** (i + 2) for i in self.out_indices)

        # Rates run over all stages of the arch, built or not: a stage does not depend on
        # which others are wanted.
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            patch_embed = PatchEmbed(dims[i - 1] if i else in_channels, dims[i], stem=i == 0)
            blocks = [
                ScopeViTBlock(
                    dims[i],
                    arch['scope_heads'][i],
                    arch['kv_strides'][i],
                    arch['grid_size'],
                    arch['mlp_ratio'],
                    arch['cpe_expansion'],
                    drop_path=next(drop_paths),
                    rel_pos_drop=rel_pos_drop,
                    max_keys=max_keys,
                )
                for _ in range(depth)
            ]
            self.stages.append(ScopeViTStage(patch_embed, blocks, dims[i], with_cp))
        self.apply(self._init_layer)
        self._freeze_stages()
        self.deploy = False
        if deploy:
            self.switch_to_deploy()

    def init_weights(self) -> None:
        """Load ``init_cfg``'s checkpoint, if it is of type 'Pretrained'; the rest is initialised already.

        Raises:
            CheckpointError: If the checkpoint is unreadable or of another arch.
        """
        if (self.init_cfg or {}).get('type') == 'Pretrained':
            match = load_backbone(self, self.init_cfg['checkpoint'], self.init_cfg.get('prefix', 'backbone.'))
            MMLogger.get_current_instance().info(f'ScopeViT from {self.init_cfg["checkpoint"]}: {match}')
        else:
            super().init_weights()

    def forward(self, x: Tensor) -> tuple:
        """Image batch (B, in_channels, H, W), any H, W >= 1 -> one map (B, C_i, H_i, W_i) per out index."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise ValueError(
                f'ScopeViT takes a batch of images (B, {self.in_channels}, H, W) with H, W >= 1, but got '
                f'{tuple(x.shape)}'
            )
        if self.deploy and self.training:
            raise RuntimeError('the deploy form of ScopeViT is for inference; train the ordinary form (deploy=False)')
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                # mmcv's operators (RoIAlign, deformable convolutions) read memory as (B, C, H, W)
                # whatever the strides say: handed channels-last maps they compute nonsense in silence.
                features.append(x.contiguous())
        return tuple(features)

    def train(self, mode: bool = True) -> 'ScopeViT':
        """Set the mode; frozen stages, and with ``norm_eval`` all batch norms, stay in evaluation."""
        super().train(mode)
        self._freeze_stages()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def switch_to_deploy(self, test_cfg: dict | None = None) -> None:
        """Change to an equal, faster form for inference; it cannot be trained any more.

        Batch norms go into the convolutions and layer scales into the linear layers before
        them, and GSDA's position bias becomes a table. Parameters change their names.

        Args:
            test_cfg: Not used; mmpose gives it to every layer that has a deploy form.
        """
        if not self.deploy:
            self.eval()
            for module in list(self.modules()):
                if hasattr(module, 'fold'):
                    module.fold()
            self.deploy = True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple:
        """Depth of a parameter for layer-wise learning-rate decay, and the number of depths.

        0 is the stem, block k (over all stages) k + 1, and everything outside the backbone
        the last depth. A stage's embedding goes with its first block, its norm with its last.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What the backbone's parameters begin with, for example ``'backbone.'``.
        """
        num_layers = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        _, stage, part, *rest = param_name[len(prefix) :].split('.')
        stage = int(stage)
        before = sum(self.depths[:stage])
        if part == 'blocks':
            return before + int(rest[0]) + 1, num_layers
        if part == 'norm':
            return before + self.depths[stage], num_layers
        return (before + 1 if stage else 0), num_layers

    def _freeze_stages(self) -> None:
        for stage in self.stages[: max(self.frozen_stages, 0)]:
            stage.eval()
            stage.requires_grad_(False)

    @staticmethod
    def _init_layer(module: nn.Module) -> None:
        """Linear: truncated normal, std 0.02. Convolution: normal over its fan-out. Biases: zero."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        else:
            return
        if module.bias is not None:
            nn.init.zeros_(module.bias)

    @classmethod
    def _parse_arch(cls, arch: str | dict) -> dict:
        """All settings of an arch, checked, as a new dict of tuples and numbers."""
        if not isinstance(arch, dict):
            if arch not in cls.arch_settings:
                raise ValueError(
                    f'unknown arch {arch!r}: choose one of {", ".join(cls.arch_settings)}, or give a dict '
                    'with embed_dims, depths and num_heads'
                )
            arch = cls.arch_settings[arch]
        per_stage = ('depths', 'embed_dims', 'num_heads', 'kv_strides', 'scope_heads')
        single = ('grid_size', 'mlp_ratio', 'cpe_expansion')
        missing = [key for key in ('embed_dims', 'depths', 'num_heads') if key not in arch]
        unknown = [key for key in arch if key not in per_stage + single]
        if missing or unknown:
            raise ValueError(
                f'arch dict: missing {missing or "nothing"}, unknown {unknown or "nothing"}; it needs '
                f'embed_dims, depths and num_heads and may have {", ".join((*per_stage[3:], *single))}'
            )
        parsed = dict(grid_size=8, mlp_ratio=4, cpe_expansion=4)
        parsed.update({key: arch[key] for key in single if key in arch})
        for key, value in parsed.items():
            if not isinstance(value, (int, float) if key == 'mlp_ratio' else int) or value < 1:
                raise ValueError(f'arch dict: {key} must be a number of at least 1, but is {value}')

        num_stages = len(arch['depths']) if isinstance(arch['depths'], (list, tuple)) else 0
        for key in per_stage[:3]:
            parsed[key] = cls._parse_per_stage(key, arch[key], num_stages)
        strides = arch.get('kv_strides', ((4, 2) + (1,) * num_stages)[:num_stages])
        parsed['kv_strides'] = cls._parse_per_stage('kv_strides', strides, num_stages)
        scopes = arch.get('scope_heads', [default_scope_heads(heads) for heads in parsed['num_heads']])
        if len(scopes) != num_stages:
            raise ValueError(f'arch dict: scope_heads must have one value for each of {num_stages} stages: {scopes}')
        parsed['scope_heads'] = tuple(map(tuple, scopes))
        for dim, heads, scopes in zip(parsed['embed_dims'], parsed['num_heads'], parsed['scope_heads']):
            if dim % heads or dim < 2:
                raise ValueError(f'arch dict: embed_dims {dim} is less than 2 or does not divide by num_heads {heads}')
            if len(scopes) != len(SCOPES) or min(scopes) < 0 or sum(scopes) != heads:
                raise ValueError(
                    f'arch dict: scope_heads {scopes} must be the heads of the 7x7, 5x5 and 3x3 scope and '
                    f'add up to num_heads {heads}'
                )
        return parsed

    @staticmethod
    def _parse_per_stage(key: str, value: Sequence[int], num_stages: int) -> tuple:
        """A whole number of at least 1 for each stage, checked."""
        fits = isinstance(value, (list, tuple)) and len(value) == num_stages > 0
        if not fits or not all(isinstance(v, int) and v >= 1 for v in value):
            raise ValueError(
                f'arch dict: {key} must have one value per stage, as depths has, of at least 1, but is {value}'
            )
        return tuple(value)

    @staticmethod
    def _parse_out_indices(out_indices: int | Sequence[int], num_stages: int) -> tuple:
        """Out indices as non-negative numbers, checked."""
        given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        whole = all(isinstance(i, int) and not isinstance(i, bool) for i in given)
        indices = tuple(i + num_stages if i < 0 else i for i in given) if whole else ()
        if not indices or any(not 0 <= i < num_stages for i in indices) or list(indices) != sorted(set(indices)):
            raise ValueError(
                f'out_indices must be ascending, unique and between {-num_stages} and {num_stages - 1} for '
                f'{num_stages} stages, but is {out_indices}'
            )
        return indices
