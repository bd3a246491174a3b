"""The toolboxes that configs are of."""

import re
from pathlib import Path

TOOLBOXES = dict(mmpretrain='mmpretrain', mmdet='mmdet', mmseg='mmsegmentation', mmpose='mmpose')
"""Distributions by module."""


def toolbox_of(name: str) -> str | None:
    """The toolbox that a config is part of, by its name (``mmdet::...``) or its place in an installed wheel."""
    found = re.match(r'(\w+)::', name) or re.search(r'/(\w+)/\.mim/configs/', Path(name).absolute().as_posix())
    return found and found.group(1)
