"""The toolboxes that configs are of."""

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from .errors import UserError

TOOLBOXES = dict(mmpretrain='mmpretrain', mmdet='mmdet', mmseg='mmsegmentation', mmpose='mmpose')
"""Distributions by module."""


def toolbox_of(name: str) -> str | None:
    """The toolbox that a config is part of, by its name (``mmdet::...``) or its place in an installed wheel."""
    found = re.match(r'(\w+)::', name) or re.search(r'/(\w+)/\.mim/configs/', Path(name).absolute().as_posix())
    return found and found.group(1)


def installed(toolbox: str) -> Path:
    """The folder of an installed toolbox's package.

    Raises:
        UserError: If it is not installed; it says how to.
    """
    spec = importlib.util.find_spec(toolbox)
    if spec is None or spec.origin is None:
        install = 'scopevit install-mmpose' if toolbox == 'mmpose' else f'pip install {TOOLBOXES[toolbox]}'
        raise UserError(f'{toolbox} is not installed: {install}')
    return Path(spec.origin).parent


def tools_of(toolbox: str) -> Path:
    """The folder of an installed toolbox's tools.

    Raises:
        UserError: If it is not installed, or brings none.
    """
    folder = installed(toolbox) / '.mim' / 'tools'
    if not folder.is_dir():
        raise UserError(
            f'{toolbox} was installed without its tools: pip install --force-reinstall {TOOLBOXES[toolbox]}'
        )
    return folder


@functools.cache
def load_tool(toolbox: str, path: str) -> ModuleType:
    """A toolbox's tool as a module, to call its functions.

    Raises:
        UserError: If it is not there.
    """
    file = tools_of(toolbox) / path
    spec = importlib.util.spec_from_file_location(f'{toolbox}_{file.stem}', file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UserError(f'{toolbox} has no tool {path}')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
