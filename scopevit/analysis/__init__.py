"""Counting what models of any toolbox compute, measuring how fast they do it, and seeing what a ScopeViT looks at."""

from .count import CONVENTION, Count, ModuleCount, count
from .measuring import Entry, compare
from .reporting import Report, Result, Settings

__all__ = ['CONVENTION', 'Count', 'Entry', 'ModuleCount', 'Report', 'Result', 'Settings', 'compare', 'count']
