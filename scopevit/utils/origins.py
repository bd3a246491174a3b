"""In which file and line a setting of a config is made: the config itself or one that it inherits.

The files are read, not run: a setting is found where it is written as a literal, a ``dict(...)``, a variable of the
same file or one of a base's.
"""

import ast
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from .toolboxes import config_path

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """A place in a file."""

    path: str
    line: int

    def __str__(self) -> str:
        before, installed, within = self.path.partition('/.mim/configs/')
        if installed:
            return f'{os.path.basename(before)}::{within}:{self.line}'
        near = os.path.relpath(self.path)
        return f'{self.path if near.startswith("..") else near}:{self.line}'


_STOP = Origin('', 0)  # nothing that a base says of it is inherited


def origin(config: str, keys: Keys) -> Origin | None:
    """Where a setting is made.

    Args:
        config: Name of a config that loads.
        keys: The names that lead to it, and numbers in lists: ``('param_scheduler', '0', 'end')``.

    Returns:
        None: It cannot be told, as of settings that are computed, or of configs with imports.
    """
    found = _File(config_path(config)).find(keys)
    return None if found is _STOP else found


class _File:
    def __init__(self, path: str) -> None:
        self.path = os.path.normpath(path)

    @cached_property
    def settings(self) -> list[tuple[Keys, ast.expr]]:
        """What the file assigns to which key, the last first."""
        tree = ast.parse(Path(self.path).read_text())
        pairs = [
            (_keys(target), statement.value)
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
        ]
        return [(keys, value) for keys, value in reversed(pairs) if keys]

    @cached_property
    def bases(self) -> list['_File']:
        return [_File(Config._get_cfg_path(base, self.path)[0]) for base in Config._get_base_files(self.path)]

    def find(self, keys: Keys) -> Origin | None:
        for start, value in self.settings:
            found = self._within(value, keys[len(start) :]) if keys[: len(start)] == start else None
            if found is not None:
                return found
        return self._inherited(keys)

    def _inherited(self, keys: Keys) -> Origin | None:
        return next((found for base in self.bases if (found := base.find(keys)) is not None), None)

    def _within(self, node: ast.expr, keys: Keys) -> Origin | None:
        """Where a key within an expression is set; None if the expression says nothing of it."""
        if not keys:
            return Origin(self.path, node.lineno)
        key, *rest = keys
        parts = _parts(node)
        if parts is None:
            return self._of_variable(node, keys) or Origin(self.path, node.lineno)
        if key in parts:
            return self._within(parts[key], tuple(rest))
        for spread in _spread(node):
            found = self._of_variable(spread, keys)
            if found is not None:
                return found
        return _STOP if '_delete_' in parts or isinstance(node, (ast.List, ast.Tuple)) else None

    def _of_variable(self, node: ast.expr, keys: Keys) -> Origin | None:
        while isinstance(node, ast.Set):  # {{_base_.name}}
            node = node.elts[0]
        name = _keys(node)
        if not name:
            return None
        return self._inherited(name[1:] + keys) if name[0] == '_base_' else self.find(name + keys)


def _keys(node: ast.expr) -> Keys:
    """The key that a variable, one of its attributes or items stands for; empty for other expressions."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        start, last = _keys(node.value), node.attr
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        start, last = _keys(node.value), str(node.slice.value)
    else:
        return ()
    return (*start, last) if start else ()


def _parts(node: ast.expr) -> dict[str, ast.expr] | None:
    """The items of a written dict or list by key; None of other expressions."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return {str(number): item for number, item in enumerate(node.elts)}
    if isinstance(node, ast.Dict):
        return {str(key.value): item for key, item in zip(node.keys, node.values) if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return {word.arg: word.value for word in node.keywords if word.arg}
    return None


def _spread(node: ast.expr) -> list[ast.expr]:
    """The dicts that a written dict takes in by ``**``."""
    if isinstance(node, ast.Dict):
        return [item for key, item in zip(node.keys, node.values) if key is None]
    return [word.value for word in node.keywords if word.arg is None] if isinstance(node, ast.Call) else []
