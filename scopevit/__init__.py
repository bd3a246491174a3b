"""ScopeViT for the OpenMMLab toolboxes.

Importing the package registers the backbone as ``scopevit.ScopeViT`` and ``ScopeViT``, lets torch's
safe loading read MMEngine's checkpoints, and gives mmcv-lite the operators that the toolboxes
call. It needs torch and mmengine alone.
"""

import sys
import warnings
from typing import TYPE_CHECKING

from .utils.own_tool import is_own_tool
from .version import __version__

if TYPE_CHECKING:
    from .models import ScopeViT
    from .stack import compatibility

if sys.version_info < (3, 10):  # noqa: UP036
    raise ImportError(
        f'scopevit needs Python 3.10 to 3.13, and this is {sys.version.split()[0]}: uv venv --python 3.12 --seed, or '
        'pyenv install 3.12, and set up again there'
    )

_broken: ImportError | None = None


def load() -> None:
    """Do what importing the package does; a tool of ours does it behind its arguments, since torch alone takes seconds.

    If torch or mmengine is missing, broken or too old, whatever is asked of the package raises an ImportError that
    says so; the doctor works all the same.
    """
    global _broken
    try:
        import mmengine.config  # noqa: F401
        import torch  # noqa: F401

        from . import models
        from .stack import compatibility
    except Exception as error:
        _broken = ImportError(
            f'scopevit cannot be used: {type(error).__name__}: {error} (python -m scopevit doctor tells what to do)'
        )
        _broken.__cause__ = error
        if 'torch' in sys.modules:  # a config that only imports scopevit would end over a backbone nobody registered
            warnings.warn(str(_broken), stacklevel=3)
    else:
        globals().update(ScopeViT=models.ScopeViT, compatibility=compatibility)


def __getattr__(name: str) -> object:
    if _broken is None and name in ('ScopeViT', 'compatibility'):
        load()
        if name in globals():
            return globals()[name]
    if _broken is not None:
        raise _broken
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if not is_own_tool():
    load()

__all__ = ['ScopeViT', '__version__', 'compatibility']
