"""ScopeViT, a transformer-CNN hybrid pyramid with multi-scale and global dilated attention.

Shape legend: B batch, C channels, H W height and width of a stage's map, h heads. Blocks
work on tokens (B, H, W, C); convolutions see them as maps (B, C, H, W), a channels-last
view of the same memory.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, NoReturn

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...registry import MODELS
from ...utils.checkpoint import load_backbone
from ...utils.config import as_list, is_checkpoint
from ...utils.errors import UserError
from ..deploy import fold
from ..layers import GlobalScaleDilatedAttention, MultiScaleSelfAttention, PatchEmbed, TransformerBlock
from ..ops.checkpoint import checkpointed
from ..ops.gpu import require_known_switch
from .arch import Arch
from .options import parse_out_indices, require_images, require_options


class ScopeViTBlock(nn.Module):
    """An MSSA block followed by a GSDA block. (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, arch: Arch, stage: int, drop_path: float, rel_pos_drop: float, max_keys: int | None) -> None:
        super().__init__()
        dim, heads = arch.embed_dims[stage], arch.scope_heads[stage]
        mssa = MultiScaleSelfAttention(dim, heads, arch.kv_strides[stage], arch.cpe_expansion, max_keys)
        gsda = GlobalScaleDilatedAttention(dim, sum(heads), arch.grid_size, rel_pos_drop)
        self.mssa = TransformerBlock(mssa, dim, arch.mlp_ratio, drop_path)
        self.gsda = TransformerBlock(gsda, dim, arch.mlp_ratio, drop_path)

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
            x = checkpointed(block, x) if self.with_cp else block(x)
        # (B, H, W, C) -> (B, C, H, W)
        return self.norm(x.permute(0, 3, 1, 2))


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
        init_cfg: MMEngine initialisation or a list of them, done after the default one: for a
            pretrained backbone ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Attributes:
        feature_channels: Channels of each returned map.
        feature_strides: Stride of each returned map.

    Raises:
        ValueError: For an unknown or inconsistent ``arch``, an ``out_indices``, a rate or
            ``frozen_stages`` out of range, and (in forward) an input of the wrong shape.
        TypeError: For an option that does not exist.
        UserError: If ``SCOPEVIT_TRITON`` in the environment has a value that means nothing.
    """

    init_cfg: Any  # BaseModule's
    arch_settings: ClassVar[dict[str, dict[str, Any]]] = {
        'xtiny': dict(embed_dims=(32, 64, 128, 256), depths=(1, 2, 4, 1), num_heads=(2, 4, 8, 16)),
        'tiny': dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 5, 2), num_heads=(2, 4, 8, 16)),
        'small': dict(embed_dims=(64, 128, 256, 512), depths=(1, 2, 3, 1), num_heads=(2, 4, 8, 16)),
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (3,),
        drop_path_rate: float = 0.0,
        rel_pos_drop: float = 0.125,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        max_keys: int | None = None,
        deploy: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        require_known_switch()
        self.arch = self.parse_arch(arch)
        dims, depths = self.arch.embed_dims, self.arch.depths
        self.in_channels = in_channels
        self.out_indices = parse_out_indices(out_indices, num_stages=len(depths))
        require_options(
            self.out_indices, frozen_stages, max_keys, drop_path_rate=drop_path_rate, rel_pos_drop=rel_pos_drop
        )
        self.depths = depths[: self.out_indices[-1] + 1]
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.feature_channels = tuple(dims[i] for i in self.out_indices)
        self.feature_strides = tuple(2 ** (i + 2) for i in self.out_indices)

        # Rates run over all stages of the arch, built or not: a stage does not depend on
        # which others are wanted.
        rates = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist()
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            patch_embed = PatchEmbed(dims[i - 1] if i else in_channels, dims[i], stem=i == 0)
            before = sum(depths[:i])
            own_rates = rates[before : before + depth]
            blocks = [ScopeViTBlock(self.arch, i, rate, rel_pos_drop, max_keys) for rate in own_rates]
            self.stages.append(ScopeViTStage(patch_embed, blocks, dims[i], with_cp))
        self.apply(self._init_layer)
        self._freeze_stages()
        self.deploy = False
        if deploy:
            self.switch_to_deploy()

    def init_weights(self) -> None:
        """Do what ``init_cfg`` says beyond the default; what is of type 'Pretrained' comes last, as in MMEngine.

        Raises:
            CheckpointError: If a checkpoint is unreadable or of another arch.
        """
        given = self.init_cfg
        checkpoints = [settings for settings in as_list(given) if is_checkpoint(settings)]
        if not checkpoints or len(checkpoints) < len(as_list(given)):
            self.init_cfg = [settings for settings in as_list(given) if settings not in checkpoints]
            super().init_weights()
            self.init_cfg = given
        for settings in checkpoints:
            match = load_backbone(self, settings['checkpoint'], settings.get('prefix', 'backbone.'))
            MMLogger.get_current_instance().info(f'ScopeViT from {settings["checkpoint"]}: {match}')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image batch (B, in_channels, H, W), any H, W >= 1 -> one map (B, C_i, H_i, W_i) per out index."""
        return self.forward_stages(x, self.out_indices)

    def forward_stages(self, x: Tensor, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """The maps of the stages ``indices``, ascending; stages after the last of them do not run."""
        x = _to_channels_last(x, self.in_channels, trains_deploy=self.deploy and self.training)
        features = []
        for i, stage in enumerate(self.stages):
            if i > indices[-1]:
                break
            x = stage(x)
            if i in indices:
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

    def switch_to_deploy(self, test_cfg: dict[str, Any] | None = None) -> None:
        """Change to an equal, faster form for inference; it cannot be trained any more.

        Batch norms go into the convolutions and layer scales into the linear layers before
        them, and GSDA's position bias becomes a table. Parameters change their names.

        Args:
            test_cfg: Not used; mmpose gives it to every layer that has a deploy form.
        """
        if not self.deploy:
            fold(self)
            self.deploy = True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
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
        _, index, part, *rest = param_name[len(prefix) :].split('.')
        stage = int(index)
        before = sum(self.depths[:stage])
        if part == 'blocks':
            return before + int(rest[0]) + 1, num_layers
        if part == 'norm':
            return before + self.depths[stage], num_layers
        return (before + 1 if stage else 0), num_layers

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first."""
        raise UserError('torch.jit.script, deprecated, cannot compile ScopeViT: use torch.export or torch.jit.trace')

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
    def parse_arch(cls, arch: str | dict[str, Any]) -> Arch:
        """All settings of an arch, checked."""
        if isinstance(arch, dict):
            return Arch(**arch)
        names = ', '.join(cls.arch_settings)
        if arch not in cls.arch_settings:
            keys = ', '.join(field.name for field in fields(Arch))
            raise ValueError(f'unknown arch {arch!r}: choose one of {names}, or give a dict of {keys}')
        return Arch(**cls.arch_settings[arch])


@fx.wrap
def _to_channels_last(x: Tensor, channels: int, trains_deploy: bool) -> Tensor:
    """Images (B, C, H, W) in the memory layout of tokens; one step of a symbolic trace, which checks them, too."""
    require_images(x, channels, trains_deploy)
    # Inside vmap PyTorch refuses memory formats, which decide about speed alone.
    return x if torch._C._are_functorch_transforms_active() else x.contiguous(memory_format=torch.channels_last)
