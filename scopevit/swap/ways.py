"""Ways to give what follows a backbone the maps that it expects, from those of ScopeViT.

What follows the backbone depends on three things: how many maps come, their strides, and their
channels. The number of maps and their strides stay, so anchors, priors, ``featmap_strides`` and
``in_index`` stay as well; old and new differ in channels, which are rewritten where a neck or
head names them. Where that is not enough, because something takes fixed channels or other
strides than 4, 8, 16 and 32, a :class:`~scopevit.models.necks.LevelAdapter` makes the old maps
from the new ones.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from mmengine.config import ConfigDict

from ..models import ScopeViT
from ..utils.config import as_list
from .channels import rewrite_followers
from .probe import Level, ProbeError

STRIDES = (4, 8, 16, 32)
# Heads without weights, and what they become behind a backbone without a classifier.
LINEAR_HEADS = dict(ClsHead='LinearClsHead', MultiLabelClsHead='MultiLabelLinearClsHead')

Adapt = Callable[[ConfigDict, str | dict, str], None]
"""Sets a model's backbone and what follows it: settings of the model, arch of ScopeViT, toolbox."""


def ways(site: ConfigDict, old: list[Level]) -> Iterator[tuple[str, Adapt]]:
    """Ways to try, the simplest first, with their names.

    Args:
        site: Settings of the model that holds the backbone.
        old: Outputs of its backbone.

    Raises:
        ProbeError: If there is none.
    """
    if old[-1].stride < 0:  # tokens: if they are averaged, pooled maps can stand for them
        first: dict = next(iter(as_list(site.get('neck'))), {})
        if first.get('type', '').split('.')[-1] != 'GlobalAveragePooling' or first.get('dim') != 1:
            raise ProbeError('its outputs are tokens, not maps, and what follows works on those')
    if old[-1].stride <= 0:  # vectors: pooled maps are that
        yield 'pooling the last map', partial(_pooled, old=old)
        return
    stages = _same_strides(old, site)
    if stages is not None:
        yield 'rewriting channels', partial(_rewritten, old=old, stages=stages)
    yield 'with a LevelAdapter', partial(_adapted, old=old)


def _same_strides(old: Sequence[Level], site: ConfigDict) -> list[int] | None:
    """Stages of ScopeViT that can stand for the old levels without conversion; None if there are none."""
    strides = [level.stride for level in old]
    if len(old) == 1 and site.get('head') and _is_pooled(site):
        return [3]  # where maps are pooled their stride does not matter
    if 'decode_head' in site and strides == sorted(strides):
        # Segmentation heads resize what they get, so stages can stand for the stages of a
        # backbone that keeps its resolution by dilation: 4, 8, 8, 8 become 4, 8, 16, 32.
        stages: list[int] = []
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
    first = next(iter(as_list(site.get('neck'))), None)
    types = [(first or {}).get('type', ''), site.head.get('type', '')] if isinstance(site.head, dict) else ['']
    return any(kind.split('.')[-1] in ('GlobalAveragePooling', 'VigClsHead', 'CSRAClsHead') for kind in types)


def _rewritten(site: ConfigDict, arch: str | dict, scope: str, old: list[Level], stages: list[int]) -> None:
    """ScopeViT's own maps, with their channels written into whatever follows."""
    site.backbone.out_indices = tuple(stages)
    channels = _channels(arch)
    new = [Level(channels[stage], STRIDES[stage]) for stage in stages]
    rewrite_followers(site, scope, old, new)


def _pooled(site: ConfigDict, arch: str | dict, scope: str, old: list[Level]) -> None:
    """The last map's mean, for a head that takes a vector for each image."""
    if len(old) > 1:
        raise ProbeError(f'the outputs of the old backbone are {len(old)} vectors for each image')
    site.backbone.out_indices = (3,)
    if old[0].stride < 0:
        site.neck = as_list(site.neck)[1:]  # the averaging of tokens
        old = [Level(old[0].channels, 0)]
    new = [Level(_channels(arch)[-1], 0)]
    if (site.get('head') or {}).get('type') in LINEAR_HEADS and not site.get('neck'):
        # The old backbone ends in a classifier of its own, as VGG's does: its vectors are scores.
        site.head.update(type=LINEAR_HEADS[site.head.type], in_channels=new[0].channels, num_classes=old[0].channels)
    else:
        rewrite_followers(site, scope, old, new)
    site.neck = [ConfigDict(type='mmpretrain.GlobalAveragePooling'), *as_list(site.get('neck'))]
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
    necks = as_list(site.get('neck'))
    if necks:
        adapter.neck = necks[0] if len(necks) == 1 else necks
    site.neck = adapter


def _levels_in_use(site: ConfigDict, count: int) -> list[int]:
    """Levels that anybody reads; for others an adapter would have parameters that never learn.

    Where heads choose by ``in_index`` it is renumbered.
    """
    heads = [head for key in ('decode_head', 'auxiliary_head') for head in as_list(site.get(key))]
    if site.get('neck') or not heads or any('in_index' not in head for head in heads):
        return list(range(count))
    used = sorted({i % count for head in heads for i in as_list(head.in_index)})
    for head in heads:
        many = isinstance(head.in_index, (list, tuple))
        new = [used.index(i % count) for i in as_list(head.in_index)]
        head.in_index = new if many else new[0]
    return used


def _channels(arch: str | dict) -> tuple[int, ...]:
    settings = ScopeViT.arch_settings[arch] if isinstance(arch, str) else arch
    return tuple(settings['embed_dims'])
