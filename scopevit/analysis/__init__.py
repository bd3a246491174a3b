"""Counting what models of any toolbox compute, and measuring how fast they do it."""

from .benchmark import Entry, Report, Result, Settings, compare
from .count import CONVENTION, Count, ModuleCount, count

__all__ = ['CONVENTION', 'Count', 'Entry', 'ModuleCount', 'Report', 'Result', 'Settings', 'compare', 'count']
