"""The toolboxes that configs are of."""

import ast
import functools
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

from .errors import UserError, did_you_mean
from .shipped import shipped

TOOLBOXES = dict(mmpretrain='mmpretrain', mmdet='mmdet', mmseg='mmsegmentation', mmpose='mmpose')
"""Distributions by module."""
_SUFFIXES = ('.py', '.json', '.yml', '.yaml')


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


def configs_of(scope: str) -> Path:
    """The folder of the configs that an installed toolbox or this package (``scopevit``) brings.

    Raises:
        UserError: If the toolbox is unknown or not installed.
    """
    if scope == 'scopevit':
        return shipped('configs')
    if scope not in TOOLBOXES:
        raise UserError(f'{scope} is none of scopevit, {", ".join(TOOLBOXES)}')
    return installed(scope) / '.mim' / 'configs'


def config_path(name: str) -> str:
    """The file of a config by its name.

    Raises:
        UserError: If there is none, it is a file of another kind, or the toolbox in the name is unknown or not
            installed.
    """
    scope, is_scoped, within = name.partition('::')
    if not is_scoped and os.path.isfile(name):
        if not name.endswith(_SUFFIXES):
            order = ', and comes before the checkpoint' if name.endswith(('.pth', '.safetensors')) else ''
            raise UserError(f'config {name} is not one: the name of a config ends in .py{order}')
        return name
    if not is_scoped and os.path.isdir(name):
        raise UserError(f'config {name} is a folder; name a file in it')
    scope = scope if is_scoped else 'scopevit'
    try:
        folder = configs_of(scope)
    except UserError as error:
        raise UserError(f'config {name}: {error}') from None
    if is_scoped and (folder / within).is_file():
        return str(folder / within)
    here = {} if is_scoped else {path.name: str(path) for path in Path('configs').rglob('*.py')}
    known = here or {path.name: f'{scope}::{path.relative_to(folder).as_posix()}' for path in folder.rglob('*.py')}
    hint = did_you_mean(os.path.basename(name), known, most=3, cutoff=0.6 if is_scoped else 0.4)
    raise UserError(f'config {name} does not exist{hint or ("" if is_scoped else "; check the path")}')


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


def list_tools(toolbox: str) -> dict[str, Path]:
    """The tools that a toolbox brings, scripts in Python and for bash, by their names: paths without suffix.

    Raises:
        UserError: If it is not installed, or brings none.
    """
    folder = tools_of(toolbox)
    paths = sorted([*folder.rglob('*.py'), *folder.rglob('*.sh')])
    return {path.relative_to(folder).with_suffix('').as_posix(): path for path in paths if _is_program(path)}


def find_tool(toolbox: str, name: str) -> Path:
    """The file of a tool, by its name or the last part of it.

    Raises:
        UserError: If there is none, or several in folders equally deep; it names the nearest, or them.
    """
    names = list_tools(toolbox)
    name = name.removesuffix('.py').removesuffix('.sh')
    found = [name] if name in names else [full for full in names if f'/{full}'.endswith(f'/{name}')]
    found = [full for full in found if full.count('/') == min(other.count('/') for other in found)]
    if len(found) > 1:
        raise UserError(f'{toolbox} has {len(found)} tools {name}: name {" or ".join(found)}')
    if not found:
        hint = did_you_mean(name.rpartition('/')[2], {full.rpartition('/')[2]: full for full in names}, cutoff=0.4)
        raise UserError(f'{toolbox} has no tool {name}{hint} (scopevit toolbox {toolbox} lists all)')
    return names[found[0]]


# What stands at the top of files that others import; a program does something there.
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Try)


def _is_program(path: Path) -> bool:
    if path.suffix == '.sh':
        return True
    statements = _parsed(path).body
    return any(
        not isinstance(statement, _DEFINITIONS)
        and not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in statements
    )


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8', errors='replace'))


def described(path: Path) -> str:
    """The first sentence of what a tool in Python says that it does: to argparse, or at its beginning."""
    if path.suffix != '.py':
        return ''
    tree = _parsed(path)
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    for call in calls:
        if getattr(call.func, 'attr', getattr(call.func, 'id', '')) == 'ArgumentParser':
            given = [keyword.value for keyword in call.keywords if keyword.arg == 'description'] or call.args
            texts = [value.value for value in given if isinstance(value, ast.Constant)]
            if texts and isinstance(texts[0], str) and texts[0].strip():
                return _first_sentence(texts[0])
    return _first_sentence(ast.get_docstring(tree) or '')


def _first_sentence(text: str) -> str:
    return ' '.join(text.split()).partition('. ')[0].rstrip('.')
