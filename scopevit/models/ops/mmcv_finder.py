"""Gives mmcv-lite its operators: ``mmcv._ext`` is mmcv_ext.py wherever mmcv was installed without compiled ones."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Optional, Sequence

from ...engine.errors import UserError

NAME = 'mmcv._ext'


class MissingOperator(UserError):
    """An operator that only a compiled mmcv has."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"mmcv's operator {name} needs a compiled mmcv, which is not installed: "
            'bash tools/setup.sh --mmcv-operators (docs/install.md)'
        )
        self.name = name


class _Finder(importlib.abc.MetaPathFinder):
    """Asked after all others: a compiled extension is found before."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name != NAME:
            return None
        return importlib.util.spec_from_file_location(NAME, Path(__file__).with_name('mmcv_ext.py'))


def offer_mmcv_operators() -> None:
    """Let ``import mmcv.ops`` work beside mmcv-lite, from now on and in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
