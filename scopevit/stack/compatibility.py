"""What MMEngine 0.10.7 does not know of newer Pythons and of this package."""

import importlib.machinery
import importlib.util
import pkgutil
import sys
import types
from importlib import metadata
from pathlib import Path

from mmengine.config.utils import MODULE2PACKAGE

# Configs of the installed package: scopevit::classification/...
MODULE2PACKAGE.setdefault('scopevit', 'scopevit')

# Python 3.14 has removed it; MMEngine asks it whether mmcv has its operators.
if not hasattr(pkgutil, 'find_loader'):
    pkgutil.find_loader = importlib.util.find_spec  # type: ignore[assignment]


def leave_out_new_transformers() -> None:
    """Let mmpretrain 1.2 be imported beside transformers 5, without its multimodal models.

    mmpretrain takes names from transformers that are gone, and then fails as a whole. What it asks
    whether they can be had is loaded before it, and answers no.
    """
    spec = importlib.util.find_spec('mmpretrain')
    name = 'mmpretrain.utils.dependency'
    if spec is None or spec.origin is None or 'mmpretrain' in sys.modules or _major_version('transformers') < 5:
        return
    path = Path(spec.origin).parent / 'utils' / 'dependency.py'
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = types.ModuleType(name)
    try:
        loader.exec_module(module)
    except ImportError:  # something that mmpretrain needs is missing, which it says when it is imported
        return
    vars(module)['WITH_MULTIMODAL'] = False
    sys.modules[name] = module


def _major_version(package: str) -> int:
    """0 if it is not installed."""
    try:
        return int(metadata.version(package).partition('.')[0])
    except (metadata.PackageNotFoundError, ValueError):
        return 0


leave_out_new_transformers()
