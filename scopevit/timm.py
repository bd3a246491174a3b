"""ScopeViT for timm: importing this module registers scopevit_xtiny, scopevit_tiny and scopevit_small.

    import timm
    import scopevit.timm

    model = timm.create_model('scopevit_tiny', num_classes=10)

There are no published weights, so ``pretrained=True`` takes a file of one's own, in
``pretrained_cfg_overlay=dict(file=...)``. ``torch.jit.script`` is refused; ``torch.jit.trace`` works.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .models import ScopeViT
from .utils.checkpoint import CheckpointError, StateDict
from .utils.weight_names import NAMINGS, to_timm_names

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.layers import ClassifierHead
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
    from timm.models._features import feature_take_indices
except ImportError as error:
    raise ImportError(f'scopevit.timm needs timm 1.0.15 or newer: pip install "timm>=1.0.15" ({error})') from error


class ScopeViTClassifier(ScopeViT):
    """The backbone with pooling and a linear classifier, and what timm expects of a model.

    With equal weights its logits are those of the classification configs. (B, in_chans, H, W) -> (B, num_classes).

    Args:
        arch: As of :class:`ScopeViT`.
        num_classes: Classes; 0 gives the pooled features.
        in_chans: Channels of the input image.
        global_pool: 'avg', 'max', 'avgmax', 'catavgmax' or, without classes, '' for the map.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        device: Where the parameters are.
        dtype: Their type.
        options: Further options of :class:`ScopeViT`: ``rel_pos_drop``, ``max_keys``, ``with_cp`` and so on.

    Raises:
        ValueError: As :class:`ScopeViT` does.
        TypeError: For an option that does not exist.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(arch, in_channels=in_chans, out_indices=(-1,), drop_path_rate=drop_path_rate, **options)
        self.stages: nn.Sequential = nn.Sequential(*self.stages)  # type: ignore[assignment]  # timm takes it apart
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = self.feature_channels[-1]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head.apply(self._init_layer)
        self.feature_info = [
            dict(num_chs=dim, reduction=2 ** (i + 2), module=f'stages.{i}')
            for i, dim in enumerate(self.arch.embed_dims)
        ]
        self.to(device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> the last map (B, C, ~H/32, ~W/32)."""
        return super().forward(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (B, num_classes), or before the classifier the pooled features (B, C)."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The stages' maps.

        Args:
            x: Images (B, in_chans, H, W).
            indices: Stages, as timm counts them: the last n, or these, or None for all.
            norm: No difference: every map is behind its stage's norm already.
            stop_early: Run no stage after the last one wanted.
            output_fmt: 'NCHW', or 'NHWC' for (B, H, W, C).
            intermediates_only: Return the list alone.

        Returns:
            The last map (B, C, H, W) and the list of maps, in the order of the stages.
        """
        if output_fmt not in ('NCHW', 'NHWC'):
            raise ValueError(f'output_fmt must be NCHW or NHWC, but is {output_fmt}')
        wanted, last = feature_take_indices(len(self.stages), indices)
        last = last if stop_early else len(self.stages) - 1
        run = sorted({*wanted, last})
        maps = self.forward_stages(x, run)
        taken = [feature for i, feature in zip(run, maps) if i in wanted]
        if output_fmt == 'NHWC':
            taken = [feature.permute(0, 2, 3, 1) for feature in taken]
        return taken if intermediates_only else (maps[-1], taken)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last one wanted, and the classifier; returns the indices as counted from 0."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        is_cut = last < len(self.stages) - 1
        self.stages, self.depths, self.out_indices = self.stages[: last + 1], self.depths[: last + 1], (last,)
        if is_cut:
            self.num_features = self.feature_info[last]['num_chs']
        if prune_head or is_cut:
            self.reset_classifier(0, '')
        return wanted

    @property
    def head_hidden_size(self) -> int:
        """Channels that the classifier sees."""
        return self.num_features * self.head.global_pool.feat_mult()

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, and another pooling if one is given; with 0 classes none."""
        self.num_classes, self.head.in_features = num_classes, self.num_features
        self.head.reset(num_classes, global_pool)
        self.head.apply(self._init_layer)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of storing their activations."""
        for stage in self.stages:
            stage.with_cp = enable  # type: ignore[assignment]

    def no_weight_decay(self) -> set[str]:
        """None but those that timm excludes itself: biases, norms and layer scales, which have one dimension."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers as :meth:`get_layer_depth` counts them; coarse ones are the stages."""
        blocks = [
            (r'^stages\.(\d+)\.patch_embed', (0,)),
            (r'^stages\.(\d+)\.blocks\.(\d+)', None),
            *((rf'^stages\.({i})\.norm', (depth - 1,)) for i, depth in enumerate(self.depths)),
        ]
        return dict(stem=r'^stages\.0\.patch_embed', blocks=r'^stages\.(\d+)' if coarse else blocks)


def checkpoint_filter_fn(weights: StateDict, model: nn.Module) -> StateDict:
    """Weights as timm, our configs of any task, or the paper's release name them, for this model.

    Raises:
        CheckpointError: If a weight of the backbone is missing or has no place.
    """
    target = model.state_dict()
    renamed = to_timm_names(weights, target)
    name = NAMINGS[renamed.naming]
    roots = {name(key).partition('.')[0] for key in target if key.startswith('stages.')}
    match = renamed.match
    # Necks and heads of other tasks may be left over; of shapes timm and torch tell.
    match.unexpected = [key for key in match.unexpected if key.partition('.')[0] in roots]
    match.missing = [key for key in match.missing if key.partition('.')[0] in roots]
    if match.missing or match.unexpected:
        raise CheckpointError(f'the checkpoint is not one of this backbone (another arch?): {match}')
    return renamed.weights


default_cfgs = generate_default_cfgs(
    {
        f'scopevit_{arch}': dict(
            input_size=(3, 256, 256),
            pool_size=(8, 8),
            crop_pct=0.9,
            interpolation='bicubic',
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            first_conv='stages.0.patch_embed.0',
            classifier='head.fc',
            license='apache-2.0',
        )
        for arch in ScopeViT.arch_settings
    }
)


def _create(arch: str, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(
        ScopeViTClassifier,
        f'scopevit_{arch}',
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        # Getter: maps contiguous as (B, C, H, W), which mmcv's operators need, see ScopeViT.forward.
        feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter', flatten_sequential=True),
        arch=arch,
        **options,
    )


@register_model
def scopevit_xtiny(pretrained: bool = False, **options: Any) -> nn.Module:
    return _create('xtiny', pretrained, **options)


@register_model
def scopevit_tiny(pretrained: bool = False, **options: Any) -> nn.Module:
    return _create('tiny', pretrained, **options)


@register_model
def scopevit_small(pretrained: bool = False, **options: Any) -> nn.Module:
    return _create('small', pretrained, **options)
