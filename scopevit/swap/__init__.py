"""Putting ScopeViT in place of the backbone of any toolbox's config."""

from .core import (
    SwapError,
    find_backbone,
    list_changes,
    list_notes,
    load_and_swap,
    show_diff,
    swap_backbone,
    toolbox_of,
)

__all__ = [
    'SwapError',
    'find_backbone',
    'list_changes',
    'list_notes',
    'load_and_swap',
    'show_diff',
    'swap_backbone',
    'toolbox_of',
]
