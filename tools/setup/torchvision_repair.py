"""Let a torchvision whose compiled part cannot load be imported beside a CPU-only torch.

The torchvision of PyPI is built for CUDA. Beside a CPU build of torch its extension does not
load, and ``import torchvision`` then fails with "operator torchvision::nms does not exist".
Declaring the two operators it asks for is enough: nothing here calls them.

The set-up copies this file into its environment, with a .pth file that imports it, only where
``import torchvision`` was seen to fail so. It costs nothing until torchvision is imported, and
does nothing where the extension loads.
"""

import glob
import importlib.abc
import importlib.util
import os
import sys

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_library = None  # the operators live as long as this object


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declare the operators when torchvision is first imported, then get out of the way."""

    def find_spec(self, name, path=None, target=None):
        if name == 'torchvision':
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None and not _extension_loads(os.path.dirname(spec.origin)):
                _declare_operators()
        return None  # noqa: RET501 (the finder protocol: not ours to find)


def _extension_loads(folder):
    import torch

    libraries = glob.glob(os.path.join(folder, '_C*.so'))
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)


def _declare_operators():
    global _library
    import torch

    _library = torch.library.Library('torchvision', 'DEF')
    for operator in ('nms', 'qnms'):
        _library.define(operator + _SCHEMA)


sys.meta_path.insert(0, _BeforeTorchvision())
