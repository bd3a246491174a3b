"""Putting ScopeViT in place of the backbone of any toolbox's config."""

from ..utils.toolboxes import toolbox_of
from .diff import list_changes, show_diff
from .recipe import list_notes
from .swap import SwapError, find_backbone, load_and_swap, split_options, swap_backbone, write_config

__all__ = [
    'SwapError',
    'find_backbone',
    'list_changes',
    'list_notes',
    'load_and_swap',
    'show_diff',
    'split_options',
    'swap_backbone',
    'toolbox_of',
    'write_config',
]
