"""Gives mmcv-lite its operators: ``mmcv._ext`` is mmcv_ext.py wherever mmcv was installed without compiled ones.

The installed package has a copy of this file beside it, which every start of Python runs: a
toolbox may be imported before scopevit is. So it imports nothing that takes time.
"""

import os
import sys

NAME = 'mmcv._ext'


class MmcvOperatorFinder:
    """Asked after all other finders: a compiled extension is found before."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """The spec of mmcv_ext.py for ``mmcv._ext``; None for any other module."""
        if name != NAME:
            return None
        import importlib.util

        package = importlib.util.find_spec('scopevit')
        if package is None or package.origin is None:
            return None
        file = os.path.join(os.path.dirname(package.origin), 'models', 'ops', 'mmcv_ext.py')
        return importlib.util.spec_from_file_location(NAME, file)


if not any(getattr(finder, '__name__', None) == MmcvOperatorFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(MmcvOperatorFinder)  # type: ignore[arg-type]  # the type of a spec takes an import
