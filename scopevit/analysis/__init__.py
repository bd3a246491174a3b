"""Counting what models of any toolbox compute, and measuring how fast they do it."""

from .count import CONVENTION, Count, ModuleCount, count

__all__ = ['CONVENTION', 'Count', 'ModuleCount', 'count']
