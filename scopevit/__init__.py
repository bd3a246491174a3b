"""ScopeViT for the OpenMMLab toolboxes.

Importing the package registers the backbone as ``scopevit.ScopeViT`` and ``ScopeViT``, lets torch's
safe loading read MMEngine's checkpoints, and gives mmcv-lite the operators that the toolboxes
call. It needs torch and mmengine alone.
"""

from .version import __version__

try:
    import mmengine.config  # noqa: F401
    import torch  # noqa: F401
except Exception as error:  # torch or mmengine is missing or broken in any way; the doctor works all the same
    _cause = error

    def __getattr__(name: str) -> object:
        raise ImportError(
            f'scopevit cannot be used: {type(_cause).__name__}: {_cause} (python -m scopevit doctor tells what to do)'
        ) from _cause
else:
    from .models import ScopeViT
    from .stack import compatibility

__all__ = ['ScopeViT', '__version__', 'compatibility']
