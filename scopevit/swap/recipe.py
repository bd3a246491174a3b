"""What else of a config depends on its backbone: weights, normalisation, the optimizer's settings."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ..apis.model import build_model
from ..utils.config import as_list, is_checkpoint, type_name, walk
from .probe import SkipInit

# ImageNet's mean and standard deviation in RGB, with which ScopeViT is pretrained.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Layer-decay constructors of the toolboxes, which know only their own backbones.
LAYER_DECAY = ('LayerDecayOptimizerConstructor', 'LearningRateDecayOptim', 'LayerDecayOptimWrapperConstructor')


def adapt_recipe(cfg: Config, site: ConfigDict, old_type: str, scope: str) -> None:
    """Adapt what else of a swapped config depends on its backbone.

    Args:
        cfg: The config, which is changed.
        site: Settings of the model that holds the backbone.
        old_type: Type of the old backbone.
        scope: The toolbox that names of the model are resolved in.
    """
    _remove_weights(cfg, site)
    if site.backbone.get('in_channels', 3) == 3 and not _normalising_pipelines(cfg):
        for preprocessor in _preprocessors(cfg).values():
            _adapt_normalisation(preprocessor, cfg.get('default_scope'))
    _remove_imports(cfg, old_type, scope)
    _adapt_optimizer(cfg)


def _remove_weights(cfg: Config, site: ConfigDict) -> None:
    """Of the old backbone, or of a whole model with it."""
    site.pop('pretrained', None)
    for holder in (site, cfg.model):
        init_cfg = holder.get('init_cfg')
        kept = [item for item in as_list(init_cfg) if not is_checkpoint(item)]
        if len(kept) < len(as_list(init_cfg)):
            holder.pop('init_cfg')
            if kept:
                holder.init_cfg = kept
    if cfg.get('load_from'):
        cfg.load_from = None


def _remove_imports(cfg: Config, old_type: str, scope: str) -> None:
    """Of another toolbox, if only the old backbone's name needed it."""
    imports = as_list((cfg.get('custom_imports') or {}).get('imports'))
    foreign = [name for name in imports if name in ('mmpretrain.models', 'mmcls.models')]
    if foreign and old_type.split('.')[0] in ('mmpretrain', 'mmcls') and scope not in ('mmpretrain', 'mmcls'):
        cfg.custom_imports.imports = [name for name in imports if name not in foreign]
        if not cfg.custom_imports.imports:
            cfg.pop('custom_imports')


def get_node(cfg: Config, path: Sequence[str]) -> Any:
    """Settings by their keys; None if there are none."""
    node: Any = cfg
    for key in path:
        node = node.get(key) if isinstance(node, (dict, Config)) else None
    return node


def _preprocessors(cfg: Config) -> dict[str, ConfigDict]:
    """The data preprocessors that are used, by their keys; of nested ones the innermost."""
    found = {}
    own = 'model.data_preprocessor' if cfg.model.get('data_preprocessor') else 'data_preprocessor'  # as the Runner does
    for key in (own, 'model.detector.data_preprocessor'):
        node = get_node(cfg, key.split('.'))
        while node and node.get('data_preprocessor'):
            node, key = node.data_preprocessor, f'{key}.data_preprocessor'
        if node:
            found[key] = node
    return found


def _normalising_pipelines(cfg: Config) -> list[str]:
    """Data loaders whose pipelines normalise the images."""
    names = [name for name in cfg if name.endswith('_dataloader')]
    return [name for name in names if any(step.get('type') == 'Normalize' for step in walk(cfg[name]))]


def _is_near(values: Sequence[float] | None, wanted: Sequence[float]) -> bool:
    """Equal but for rounding, which differs between the toolboxes' configs."""
    return values is not None and len(values) == len(wanted) and all(abs(a - b) < 2 for a, b in zip(values, wanted))


def _is_of_a_data_set(preprocessor: ConfigDict) -> bool:
    """Whether a mean is neither ImageNet's nor a mere scaling to -1 to 1, to 0 to 1, or none."""
    mean, std = (list(preprocessor.get(key) or []) for key in ('mean', 'std'))
    if not mean or (len(mean) == 3 and _is_near(sorted(mean), sorted(MEAN))):
        return False
    scalings = [(m, s) for m, s in zip(mean, std) if m == s or (m == 0 and s in (1, 255))]
    return len(mean) != 3 or len(scalings) < 3


def _adapt_normalisation(preprocessor: ConfigDict, scope: str | None) -> None:
    """Images in the order and scale of ScopeViT's pretraining: RGB, with ImageNet's mean and standard deviation.

    Others belong to the old backbone's weights, or to certain data; those of data stay.
    """
    if _is_of_a_data_set(preprocessor):
        return
    # The two names of the option that turns BGR, which all toolboxes read, into RGB.
    of_mmpretrain = scope == 'mmpretrain' or 'ReID' in str(preprocessor.get('type'))
    order = next(
        (k for k in ('to_rgb', 'bgr_to_rgb') if k in preprocessor), 'to_rgb' if of_mmpretrain else 'bgr_to_rgb'
    )
    preprocessor[order] = True
    preprocessor.pop('rgb_to_bgr', None)
    if not (_is_near(preprocessor.get('mean'), MEAN) and _is_near(preprocessor.get('std'), STD)):
        preprocessor.mean, preprocessor.std = list(MEAN), list(STD)


def list_notes(cfg: Config) -> list[str]:
    """What the swap left as it was in a config although ScopeViT is trained otherwise."""
    return [*_notes_on_images(cfg), *_notes_on_optimizer(cfg)]


def _notes_on_images(cfg: Config) -> list[str]:
    usual = f"ScopeViT's weights are pretrained on RGB with mean {MEAN} and std {STD}"
    pipelines = _normalising_pipelines(cfg)
    if pipelines:
        return [f'{", ".join(pipelines)}: Normalize in the pipeline stays as it is; {usual}']
    preprocessors = _preprocessors(cfg)
    if not preprocessors:
        return [f'data_preprocessor: there is none, so that images are not normalised; {usual}']
    return [
        f'{key}: mean {list(p.mean)} and std {list(p.get("std") or [])} stay, as those of certain data; {usual}'
        for key, p in preprocessors.items()
        if _is_of_a_data_set(p)
    ]


def _notes_on_optimizer(cfg: Config) -> list[str]:
    if not any(type_name(part.get('optimizer')) == 'SGD' for part in walk(cfg.get('optim_wrapper'))):
        return []
    key = 'optim_wrapper.optimizer'
    return [
        f'{key}: SGD stays; ScopeViT is trained with AdamW or Adam in all recipes here: --cfg-options '
        f'{key}._delete_=True {key}.type=AdamW {key}.lr=RATE {key}.weight_decay=0.05, with RATE as in the recipes for '
        'this task in configs/'
    ]


def _adapt_optimizer(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, ConfigDict):
        return
    paramwise = wrapper.get('paramwise_cfg') or ConfigDict()
    if any(name in str(wrapper.get('constructor')) for name in LAYER_DECAY):
        wrapper.constructor = 'scopevit.LayerDecayOptimWrapperConstructor'
        rate = paramwise.pop('layer_decay_rate', None) or paramwise.pop('decay_rate', None) or 1.0
        for key in ('decay_type', 'num_layers'):
            paramwise.pop(key, None)
        paramwise.layer_decay_rate = rate
        wrapper.paramwise_cfg = paramwise
    custom = paramwise.get('custom_keys')
    if custom:
        with SkipInit():
            names = [name for name, _ in build_model(cfg).named_parameters()]
        for key in [key for key in custom if not any(key in name for name in names)]:
            custom.pop(key)
