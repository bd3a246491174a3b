"""Writing the channels of other maps into what follows a backbone."""

import copy

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
        for inner in as_list(value):
            if isinstance(inner, dict):
                _rewrite_channels(inner, old, new, top=False)
