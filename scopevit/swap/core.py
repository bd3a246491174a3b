"""The swap: learn what the old backbone hands on, let ScopeViT hand on the same or mend who takes it, try it.

What follows the backbone depends on three things: how many maps come, their strides, and their
channels. The number of maps and their strides stay, so anchors, priors, ``featmap_strides`` and
``in_index`` stay as well; old and new differ in channels, which are rewritten where a neck or
head names them. Where that is not enough, because something takes fixed channels or other
strides than 4, 8, 16 and 32, a :class:`~scopevit.models.necks.LevelAdapter` makes the old maps
from the new ones. Which way works is not guessed: each is built and run.
"""

import copy
import difflib
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from ..apis.model import in_scope
from ..models import ScopeViT
from ..models.ops import MissingOperator
from ..utils.building import failing_key
from ..utils.config import is_checkpoint, load_config, walk
from ..utils.errors import UserError, raise_own
from ..utils.toolboxes import toolbox_of
from .probe import Level, ProbeError, build_uninitialised, probe_backbone, probe_neck
from .trial import SettingError, gpu_operator, run_tensor, small_model

STRIDES = (4, 8, 16, 32)
# Settings that name the channels of incoming maps.
CHANNEL_KEYS = ('in_channels', 'c1_in_channels', 'input_features')
# Heads without weights, and what they become behind a backbone without a classifier.
LINEAR_HEADS = dict(ClsHead='LinearClsHead', MultiLabelClsHead='MultiLabelLinearClsHead')
# ImageNet's mean and standard deviation in RGB, with which ScopeViT is pretrained.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Layer-decay constructors of the toolboxes, which know only their own backbones.
LAYER_DECAY = ('LayerDecayOptimizerConstructor', 'LearningRateDecayOptim', 'LayerDecayOptimWrapperConstructor')


class SwapError(UserError):
    """A backbone cannot be replaced.

    Attributes:
        problems: Pairs of a key of the config and what is wrong there.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__('the backbone cannot be replaced: ' + '; '.join(f'{key}: {why}' for key, why in problems))


def swap_backbone(
    cfg: Config,
    arch: str | dict = 'tiny',
    *,
    scope: str | None = None,
    check: Callable[[Config], object] | None = None,
    **backbone_options,
) -> Config:
    """A copy of a config whose backbone is ScopeViT, with everything mended that depends on it.

    Args:
        cfg: A config of mmpretrain, mmdet, mmseg or mmpose; it is not changed.
        scope: The toolbox whose names the config uses, if it has no ``default_scope``.
        check: Raises if a candidate does not work; by default it is built and run on a small batch.
        backbone_options: More options of ScopeViT, for example ``drop_path_rate=0.1``.

    Raises:
        SwapError: If the config has no backbone that hands on images' feature maps, or nothing
            that was tried works.
    """
    check = check or try_model
    if isinstance(arch, str) and arch not in ScopeViT.arch_settings:
        raise SwapError([('arch', f'unknown {arch!r}; choose one of {", ".join(ScopeViT.arch_settings)}')])
    path = find_backbone(cfg)
    where = '.'.join(path)
    default_scope = cfg.get('default_scope') or scope
    old_site = _get(cfg, path[:-1])
    scope = old_site.get('_scope_') or old_site.backbone.get('_scope_') or default_scope or 'mmengine'
    in_channels = _image_channels(cfg, old_site)
    _refuse_second_backbone(old_site, '.'.join(path[:-1]))
    try:
        old = probe_backbone(old_site.backbone.to_dict(), scope, in_channels)
        ways = list(_ways(old_site, old, scope))
    except ProbeError as error:
        raise_own(error)
        problems = [(where, str(error))]
        if default_scope is None and 'registry' in str(error):
            problems.append(('default_scope', 'is missing; set it to the toolbox of the model, for example mmdet'))
        raise SwapError(problems) from error

    options = dict(backbone_options)
    if in_channels != 3:
        options['in_channels'] = in_channels
    if old_site.backbone.get('with_cp'):
        options['with_cp'] = True
    problems = []
    for name, mend in ways:
        # Through plain dicts: a setting that stands in two places is copied for each.
        new = Config(cfg.to_dict(), cfg_text=cfg.text or ' ', filename=cfg.filename)
        if default_scope is not None:
            new.default_scope = default_scope
        site = _get(new, path[:-1])
        try:
            _mend_model(new, site, arch, options, mend, scope)
            _mend_training(new)
            check(new)
        except ProbeError as error:
            problems.append((where, f'{name}: {error}'))
        except Exception as error:  # a candidate may fail in any way; the ways left are tried
            key = _failing_key(error, new) or where
            if isinstance(error, MissingOperator):  # whichever way
                raise SwapError([(key, str(error))]) from error
            operator = gpu_operator(error)
            if operator:
                why = f'cannot be tried without a GPU: its operator {operator} has no implementation for CPUs'
                raise SwapError([(key, why)]) from error
            problems.append((key, f'{name}: {error if isinstance(error, SettingError) else _one_line(error)}'))
        else:
            return new
    raise SwapError(problems)


def load_and_swap(name: str, arch: str, cfg_options: dict | None = None) -> Config:
    """Load a config of any toolbox, override settings of it, and swap its backbone.

    Overrides of the backbone (``model.backbone.drop_path_rate``) are meant for ScopeViT; all
    others come before the swap, so that what is tried is what runs. What the swap could not
    settle is logged.
    """
    own, others = {}, {}
    for key, value in (cfg_options or {}).items():
        before, _, option = key.rpartition('.backbone.')
        if before in ('model', 'model.detector'):
            own[option] = value
        else:
            others[key] = value
    cfg = swap_backbone(load_config(name, others), own.pop('arch', arch), scope=toolbox_of(name), **own)
    for note in list_notes(cfg):
        print_log(note, logger='current', level=logging.WARNING)
    return cfg


def find_backbone(cfg: Config) -> tuple[str, ...]:
    """Where the backbone stands in a config, for example ``('model', 'backbone')``.

    Trackers and semi-supervised methods hold a whole model as their ``detector``.
    """
    if cfg.get('model') is None:
        raise SwapError([('model', 'this config has none')])
    if not isinstance(cfg.model, dict) or not isinstance(cfg.model.get('type'), str):
        raise SwapError([('model', "is not written as dicts with a type's name; new-style configs are not supported")])
    for path in (('model',), ('model', 'detector')):
        holder = _get(cfg, path)
        if isinstance(holder, dict) and isinstance(holder.get('backbone'), dict):
            return (*path, 'backbone')
    if cfg.model.get('image_encoder'):
        raise SwapError([('model.image_encoder', 'holds the backbone; only one in model.backbone can be replaced')])
    raise SwapError([('model', f'{cfg.model.type} has no backbone')])


def _get(cfg: Config, path: Sequence[str]) -> ConfigDict | None:
    node = cfg
    for key in path:
        node = node.get(key) if isinstance(node, (dict, Config)) else None
    return node


def _image_channels(cfg: Config, site: ConfigDict) -> int:
    if site.backbone.get('in_channels') is not None:
        return site.backbone.in_channels if isinstance(site.backbone.in_channels, int) else 3
    for holder in (site, cfg.model, cfg):
        mean = (holder.get('data_preprocessor') or {}).get('mean')
        if mean:
            return len(mean)
    return 3


def _refuse_second_backbone(site: ConfigDict, key: str) -> None:
    """DetectoRS' neck feeds its own copy of the old backbone with the image, which the old one hands on."""
    for neck in _as_list(site.get('neck')):
        for name in neck:
            if name.endswith('backbone'):
                raise SwapError(
                    [(f'{key}.neck.{name}', 'the neck runs a second backbone, made to share the image with the first')]
                )


# The ways to hand on what the old backbone did


def _ways(site: ConfigDict, old: list[Level], scope: str) -> Iterator[tuple[str, Callable]]:
    """Ways to try, the simplest first: a name and a function (site, arch, scope) that sets backbone and neck."""
    if old[-1].stride < 0:  # tokens: if they are averaged, pooled maps can stand for them
        first = next(iter(_as_list(site.get('neck'))), {})
        if first.get('type', '').split('.')[-1] != 'GlobalAveragePooling' or first.get('dim') != 1:
            raise ProbeError('it hands on tokens, not maps, and what follows works on those')
    if old[-1].stride <= 0:  # vectors: pooled maps are that
        yield 'pooling the last map', lambda *args: _pooled(*args, old)
        return
    stages = _same_strides(old, site)
    if stages is not None:
        yield 'rewriting channels', lambda *args: _rewritten(*args, old, stages)
    yield 'with a LevelAdapter', lambda *args: _adapted(*args, old)


def _same_strides(old: Sequence[Level], site: ConfigDict) -> list[int] | None:
    """Stages of ScopeViT that can stand for the old levels without conversion; None if there are none."""
    strides = [level.stride for level in old]
    if len(old) == 1 and site.get('head') and _is_pooled(site):
        return [3]  # where maps are pooled their stride does not matter
    if 'decode_head' in site and strides == sorted(strides):
        # Segmentation heads resize what they get, so stages can stand for the stages of a
        # backbone that keeps its resolution by dilation: 4, 8, 8, 8 become 4, 8, 16, 32.
        stages = []
        for stride in strides:
            at_least = STRIDES.index(stride) if stride in STRIDES else len(STRIDES)
            stages.append(max(at_least, stages[-1] + 1 if stages else 0))
        if stages[-1] == 3 and 3 not in stages[:-1]:
            return stages
    # Without the deepest stage most of the backbone's depth would be lost.
    if all(stride in STRIDES for stride in strides) and sorted(set(strides)) == strides and strides[-1] == 32:
        return [STRIDES.index(stride) for stride in strides]
    return None


def _is_pooled(site: ConfigDict) -> bool:
    first = next(iter(_as_list(site.get('neck'))), None)
    types = [(first or {}).get('type', ''), site.head.get('type', '')] if isinstance(site.head, dict) else ['']
    return any(kind.split('.')[-1] in ('GlobalAveragePooling', 'VigClsHead', 'CSRAClsHead') for kind in types)


def _rewritten(site: ConfigDict, arch: str | dict, scope: str, old: list[Level], stages: list[int]) -> None:
    """ScopeViT's own maps, with their channels written into whatever follows."""
    site.backbone.out_indices = tuple(stages)
    channels = _channels(arch)
    new = [Level(channels[stage], STRIDES[stage]) for stage in stages]
    _rewrite_followers(site, scope, old, new)


def _pooled(site: ConfigDict, arch: str | dict, scope: str, old: list[Level]) -> None:
    """The last map's mean, for a head that takes a vector for each image."""
    if len(old) > 1:
        raise ProbeError(f'the old backbone hands on {len(old)} vectors for each image')
    site.backbone.out_indices = (3,)
    if old[0].stride < 0:
        site.neck = _as_list(site.neck)[1:]  # the averaging of tokens
        old = [Level(old[0].channels, 0)]
    new = [Level(_channels(arch)[-1], 0)]
    if (site.get('head') or {}).get('type') in LINEAR_HEADS and not site.get('neck'):
        # The old backbone ends in a classifier of its own, as VGG's does: its vectors are scores.
        site.head.update(type=LINEAR_HEADS[site.head.type], in_channels=new[0].channels, num_classes=old[0].channels)
    else:
        _rewrite_followers(site, scope, old, new)
    site.neck = [ConfigDict(type='mmpretrain.GlobalAveragePooling'), *_as_list(site.get('neck'))]
    if len(site.neck) == 1:
        site.neck = site.neck[0]


def _adapted(site: ConfigDict, arch: str | dict, scope: str, old: list[Level]) -> None:
    """The old channels and strides, made from ScopeViT's maps."""
    site.backbone.out_indices = (0, 1, 2, 3)
    kept = _levels_in_use(site, len(old))
    strides = [level.stride for level in old]
    if len(set(strides)) < len(strides) <= len(STRIDES):
        # Maps of one size at growing depth, as a plain transformer's: each from its own stage.
        first_stages = [len(STRIDES) - len(old) + i for i in range(len(old))]
    else:
        first_stages = [max(i for i, s in enumerate(STRIDES) if s <= max(stride, 4)) for stride in strides]
    adapter = ConfigDict(
        type='scopevit.LevelAdapter',
        in_channels=list(_channels(arch)),
        out_channels=[old[i].channels for i in kept],
        out_strides=[old[i].stride for i in kept],
        first_stages=[first_stages[i] for i in kept],
    )
    # mmpose takes no list of necks: the adapter holds the one that there is.
    necks = _as_list(site.get('neck'))
    if necks:
        adapter.neck = necks[0] if len(necks) == 1 else necks
    site.neck = adapter


def _levels_in_use(site: ConfigDict, count: int) -> list[int]:
    """Levels that anybody reads; for others an adapter would have parameters that never learn.

    Where heads choose by ``in_index`` it is renumbered.
    """
    heads = [head for key in ('decode_head', 'auxiliary_head') for head in _as_list(site.get(key))]
    if site.get('neck') or not heads or any('in_index' not in head for head in heads):
        return list(range(count))
    used = sorted({i % count for head in heads for i in _as_list(head.in_index)})
    for head in heads:
        many = isinstance(head.in_index, (list, tuple))
        new = [used.index(i % count) for i in _as_list(head.in_index)]
        head.in_index = new if many else new[0]
    return used


def _channels(arch: str | dict) -> tuple[int, ...]:
    settings = ScopeViT.arch_settings[arch] if isinstance(arch, str) else arch
    return tuple(settings['embed_dims'])


# Channels


def _rewrite_followers(site: ConfigDict, scope: str, old: list[Level], new: list[Level]) -> None:
    """Write new channels into necks and heads, following what each neck makes of them."""
    for neck in _as_list(site.get('neck')):
        before = copy.deepcopy(neck.to_dict())
        _rewrite_channels(neck, old, new)
        if neck.get('type', '').split('.')[-1] == 'GlobalAveragePooling':
            continue  # channels stay, whatever the size that is pooled
        try:
            old, new = probe_neck(before, scope, old), probe_neck(neck.to_dict(), scope, new)
        except ProbeError:
            # A neck with an operator that does not run here hands on what it did before, as nearly
            # all do; whether that is so, the trial shows.
            return
    if [level.channels for level in old] == [level.channels for level in new]:
        return
    for key, value in site.items():
        if key not in ('backbone', 'neck') and not key.startswith('teacher'):
            for head in _as_list(value):
                if isinstance(head, dict):
                    _rewrite_channels(head, old, new)


def _rewrite_channels(node: dict, old: list[Level], new: list[Level], top: bool = True) -> None:
    """Replace old channels by new ones where settings name those of incoming maps.

    A single number inside a nested dict may mean anything; it is taken for channels only
    beside an ``in_index``.
    """
    before, after = [level.channels for level in old], [level.channels for level in new]
    for key in CHANNEL_KEYS:
        value, index = node.get(key), node.get('in_index')
        if isinstance(value, (list, tuple)):
            indices = index if isinstance(index, (list, tuple)) and len(index) == len(value) else range(len(value))
            if [before[i] for i in indices if i < len(before)] == list(value):
                node[key] = type(value)(after[i] for i in indices)
            elif top and all(c in before for c in value):
                node[key] = type(value)(after[before.index(c)] for c in value)
        elif isinstance(value, int) and (top or index is not None):
            if isinstance(index, int) and before[index] == value and key == 'in_channels':
                node[key] = after[index]
            elif value in before:
                # The last of equals: heads on one map take the deepest.
                place = before.index(value) if key == 'c1_in_channels' else -1 - before[::-1].index(value)
                node[key] = after[place]
            elif value == sum(before):
                node[key] = sum(after)
    for value in node.values():
        for inner in _as_list(value):
            if isinstance(inner, dict):
                _rewrite_channels(inner, old, new, top=False)


# The rest of the config


def _mend_model(cfg: Config, site: ConfigDict, arch: str | dict, options: dict, mend: Callable, scope: str) -> None:
    old = site.backbone
    site.backbone = ConfigDict(type='scopevit.ScopeViT', arch=arch, out_indices=(3,), **options)
    mend(site, arch, scope)
    # Weights of the old backbone, or of a whole model with it.
    site.pop('pretrained', None)
    for holder in (site, cfg.model):
        init_cfg = holder.get('init_cfg')
        kept = [item for item in _as_list(init_cfg) if not is_checkpoint(item)]
        if len(kept) < len(_as_list(init_cfg)):
            holder.pop('init_cfg')
            if kept:
                holder.init_cfg = kept
    if cfg.get('load_from'):
        cfg.load_from = None
    if options.get('in_channels', 3) == 3 and not _normalising_pipelines(cfg):
        for preprocessor in _preprocessors(cfg).values():
            _mend_normalisation(preprocessor, cfg.get('default_scope'))
    # Only the old backbone's name needed the import.
    imports = _as_list((cfg.get('custom_imports') or {}).get('imports'))
    foreign = [name for name in imports if name in ('mmpretrain.models', 'mmcls.models')]
    if foreign and old.type.split('.')[0] in ('mmpretrain', 'mmcls') and scope not in ('mmpretrain', 'mmcls'):
        cfg.custom_imports.imports = [name for name in imports if name not in foreign]
        if not cfg.custom_imports.imports:
            cfg.pop('custom_imports')


def _preprocessors(cfg: Config) -> dict[str, ConfigDict]:
    """The data preprocessors that are used, by their keys; of nested ones the innermost."""
    found = {}
    for key in ('model', 'model.detector'):
        holder = _get(cfg, key.split('.')) or {}
        if key == 'model' and not holder.get('data_preprocessor'):
            key, holder = '', cfg  # as the Runner does
        node, key = holder.get('data_preprocessor'), f'{key}.data_preprocessor'.lstrip('.')
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


def _mend_normalisation(preprocessor: ConfigDict, scope: str | None) -> None:
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
    """What the swap left as it was in a config although ScopeViT was pretrained otherwise."""
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


def _mend_training(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        return
    paramwise = wrapper.get('paramwise_cfg') or {}
    if any(name in str(wrapper.get('constructor')) for name in LAYER_DECAY):
        wrapper.constructor = 'scopevit.LayerDecayOptimWrapperConstructor'
        rate = paramwise.pop('layer_decay_rate', None) or paramwise.pop('decay_rate', None) or 1.0
        for key in ('decay_type', 'num_layers'):
            paramwise.pop(key, None)
        paramwise.layer_decay_rate = rate
        wrapper.paramwise_cfg = paramwise
    custom = paramwise.get('custom_keys')
    if custom:
        names = [
            name
            for name, _ in build_uninitialised(
                small_model(cfg), cfg.get('default_scope', 'mmengine')
            ).named_parameters()
        ]
        for key in [key for key in custom if not any(key in name for name in names)]:
            custom.pop(key)


def _as_list(value: object) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


# Trying it


def build_trial_model(cfg: Config) -> nn.Module:
    """A config's model as the Runner builds it, initialised, with fewer proposals and no weights to load."""
    with in_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(small_model(cfg))
        logging.disable(logging.INFO)  # MMEngine logs every value that it sets
        try:
            model.init_weights()
        finally:
            logging.disable(logging.NOTSET)
        return model


def try_model(cfg: Config) -> tuple[nn.Module, int]:
    """Build a config's model and run it on a small batch; raises what goes wrong.

    It runs on the CPU, and on the GPU if there is one and an operator runs only there.

    Returns:
        The model, in evaluation mode, and the size of the images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # whether proposals are left may depend on the initial weights
        model = build_trial_model(cfg)
    model.eval()  # not all models return themselves
    with in_scope(cfg.get('default_scope', 'mmengine')), torch.no_grad():
        try:
            return model, run_tensor(cfg, model)
        except Exception as error:
            if not (gpu_operator(error) and torch.cuda.is_available()):
                raise
        model.to('cuda')
        return model, run_tensor(cfg, model)


# Telling what changed


def list_changes(old: Config, new: Config) -> list[str]:
    """One line for each setting that differs: its key, the old and the new value."""
    return list(_changes(old.to_dict(), new.to_dict(), ''))


def _changes(old: object, new: object, key: str) -> Iterator[str]:
    same_kind = isinstance(old, dict) and isinstance(new, dict) and old.get('type') == new.get('type')
    if same_kind:
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f'{key}.{name}' if key else str(name)
            if name not in new:
                yield f'{inner}: removed {old[name]!r}'
            elif name not in old:
                yield f'{inner}: added {new[name]!r}'
            else:
                yield from _changes(old[name], new[name], inner)
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new) and _as_dicts(old):
        for i, pair in enumerate(zip(old, new)):
            yield from _changes(*pair, f'{key}.{i}')
    elif old != new:
        yield f'{key}: {old!r} -> {new!r}'


def _as_dicts(items: Sequence) -> bool:
    return all(isinstance(item, dict) for item in items)


def show_diff(old: Config, new: Config) -> str:
    """The two configs in full, compared line by line."""
    lines = difflib.unified_diff(
        old.pretty_text.splitlines(), new.pretty_text.splitlines(), 'before', 'after', lineterm='', n=2
    )
    return '\n'.join(lines)


def _one_line(error: Exception) -> str:
    """What an error says, and where it was raised, as assertions often say nothing."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]} ({frame.name} in {Path(frame.filename).name})'


def _failing_key(error: Exception, cfg: Config) -> str | None:
    """Key of the part of a model that was built or run when an error was raised, as far as its traceback tells."""
    if isinstance(error, SettingError):
        return error.key
    key = failing_key(error, cfg)
    # What an adapter holds is the neck of the user's config.
    return key.replace('.neck.neck', '.neck') if key and key != 'model' else None
