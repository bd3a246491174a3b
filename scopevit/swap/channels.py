"""Writing the channels of other maps into what follows a backbone."""

import copy
from collections.abc import Sequence

from mmengine.config import ConfigDict

from ..utils.config import as_list
from .probe import Level, ProbeError, probe_neck

# Settings that name the channels of incoming maps.
CHANNEL_KEYS = ('in_channels', 'c1_in_channels', 'input_features')


def rewrite_followers(site: ConfigDict, scope: str, old: list[Level], new: list[Level]) -> None:
    """Write new channels into necks and heads, following what each neck makes of them."""
    for neck in as_list(site.get('neck')):
        before = copy.deepcopy(neck.to_dict())
        _rewrite_channels(neck, old, new)
        if neck.get('type', '').split('.')[-1] == 'GlobalAveragePooling':
            continue  # channels stay, whatever the size that is pooled
        try:
            old, new = probe_neck(before, scope, old), probe_neck(neck.to_dict(), scope, new)
        except ProbeError:
            # The outputs of a neck with an operator that does not run here stay, as those of nearly
            # all do; whether that is so, the trial shows.
            return
    if [level.channels for level in old] == [level.channels for level in new]:
        return
    for key, value in site.items():
        if key not in ('backbone', 'neck') and not key.startswith('teacher'):
            for head in as_list(value):
                if isinstance(head, dict):
                    _rewrite_channels(head, old, new)


def _rewrite_channels(node: dict, old: list[Level], new: list[Level], top: bool = True) -> None:
    """Replace old channels by new ones where settings name those of incoming maps.

    A single number inside a nested dict may mean anything; it is taken for channels only
    beside an ``in_index``.
    """
    before, after = [level.channels for level in old], [level.channels for level in new]
    index = node.get('in_index')
    for key in CHANNEL_KEYS:
        value = node.get(key)
        if isinstance(value, (list, tuple)):
            levels = _levels_of_list(value, index, before, is_sure=top)
            node[key] = type(value)(after[i] for i in levels) if levels else value
        elif isinstance(value, int) and (top or index is not None):
            levels = _levels_of_number(value, key, index, before)
            node[key] = sum(after[i] for i in levels) if levels else value
    for value in node.values():
        for inner in as_list(value):
            if isinstance(inner, dict):
                _rewrite_channels(inner, old, new, top=False)


def _levels_of_list(channels: Sequence[int], index: object, before: list[int], is_sure: bool) -> Sequence[int]:
    """Which levels a list of channels is of: those of ``in_index``, or the first ones; none if it is of others.

    A list that is surely of channels may also name them in another order.
    """
    levels = index if isinstance(index, (list, tuple)) and len(index) == len(channels) else range(len(channels))
    if [before[i] for i in levels if i < len(before)] == list(channels):
        return levels
    return [before.index(c) for c in channels] if is_sure and all(c in before for c in channels) else ()


def _levels_of_number(channels: int, key: str, index: object, before: list[int]) -> Sequence[int]:
    """Which level a number of channels is of, or all if it is their sum; none if it is of others."""
    if isinstance(index, int) and before[index] == channels and key == 'in_channels':
        return [index]
    if channels in before:
        # The last of equals: heads on one map take the deepest.
        levels = [i for i, known in enumerate(before) if known == channels]
        return [levels[0] if key == 'c1_in_channels' else levels[-1]]
    return range(len(before)) if channels == sum(before) else ()
