"""What MMEngine 0.10.7 does not know of newer Pythons and of this package."""

import importlib.util
import pkgutil

from mmengine.config.utils import MODULE2PACKAGE

# Configs of the installed package: scopevit::classification/...
MODULE2PACKAGE.setdefault('scopevit', 'scopevit')

# Python 3.14 has removed it; MMEngine asks it whether mmcv has its operators.
if not hasattr(pkgutil, 'find_loader'):
    pkgutil.find_loader = importlib.util.find_spec
