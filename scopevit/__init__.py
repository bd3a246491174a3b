"""ScopeViT for the OpenMMLab toolboxes.

Importing the package registers the backbone as ``scopevit.ScopeViT`` and ``ScopeViT``, lets torch's
safe loading read MMEngine's checkpoints, and gives mmcv-lite the operators that the toolboxes
call. It needs torch and mmengine alone.
"""

import sys
import warnings

from .utils.help import is_help
from .version import __version__

if sys.version_info < (3, 10):  # noqa: UP036
    raise ImportError(
        f'scopevit needs Python 3.10 to 3.13, and this is {sys.version.split()[0]}: uv venv --python 3.12 --seed, or '
        'pyenv install 3.12, and set up again there'
    )

if is_help():  # of our tools, which ends before it needs any of this; torch alone takes seconds

    def __getattr__(name: str) -> object:
        if name != 'ScopeViT':
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        from .models import ScopeViT

        return ScopeViT
else:
    try:
        import mmengine.config  # noqa: F401
        import torch  # noqa: F401

        from .models import ScopeViT
        from .stack import compatibility
    except Exception as error:  # torch or mmengine is missing, broken or too old; the doctor works all the same
        _cause = error
        _message = (
            f'scopevit cannot be used: {type(error).__name__}: {error} (python -m scopevit doctor tells what to do)'
        )
        if 'torch' in sys.modules:  # a config that only imports scopevit would end over a backbone nobody registered
            warnings.warn(_message, stacklevel=2)

        def __getattr__(name: str) -> object:
            raise ImportError(_message) from _cause


__all__ = ['ScopeViT', '__version__', 'compatibility']
