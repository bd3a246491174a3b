"""ScopeViT for the OpenMMLab toolboxes.

Importing the package registers the backbone as ``scopevit.ScopeViT`` and ``ScopeViT``, and
lets torch's safe loading read MMEngine's checkpoints. It needs torch and mmengine alone.
"""

from . import engine
from .models import ScopeViT
from .version import __version__

__all__ = ['ScopeViT', '__version__', 'engine']
