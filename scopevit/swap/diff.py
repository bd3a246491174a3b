"""Telling what a swap changes."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config


def list_changes(old: Config, new: Config) -> list[str]:
    """One line for each setting that differs: its key, the old and the new value."""
    return list(_changes(old.to_dict(), new.to_dict(), ''))


def _changes(old: Any, new: Any, key: str) -> Iterator[str]:
    same_kind = isinstance(old, dict) and isinstance(new, dict) and old.get('type') == new.get('type')
    if same_kind:
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f'{key}.{name}' if key else str(name)
            if name not in new:
                yield f'{inner}: removed {old[name]!r}'
            elif name not in old:
                yield f'{inner}: added {new[name]!r}'
            else:
                yield from _changes(old[name], new[name], inner)
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new) and _as_dicts(old):
        for i, pair in enumerate(zip(old, new)):
            yield from _changes(*pair, f'{key}.{i}')
    elif old != new:
        yield f'{key}: {old!r} -> {new!r}'


def _as_dicts(items: Sequence) -> bool:
    return all(isinstance(item, dict) for item in items)


def show_diff(old: Config, new: Config) -> str:
    """The two configs in full, compared line by line."""
    lines = difflib.unified_diff(
        old.pretty_text.splitlines(), new.pretty_text.splitlines(), 'before', 'after', lineterm='', n=2
    )
    return '\n'.join(lines)
