"""Print a config with all that it inherits, or one part of it and where each setting comes from.

    scopevit print-config CONFIG
    scopevit print-config CONFIG optim_wrapper
    scopevit print-config CONFIG model.backbone.arch param_scheduler.0.end

A place is a file, of the config itself or of one that it inherits, and the line in it.
"""

from collections.abc import Iterator
from typing import Any

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, did_you_mean, user_errors


def part(cfg: Any, key: str) -> Any:
    """The part of a config that a key names."""
    node, before = cfg, ''
    for name in key.split('.'):
        parts = dict(_items(node))
        if name not in parts:
            hint = did_you_mean(name, {other: f'{before}{other}' for other in parts})
            raise UserError(f'the config has no {before}{name}{hint or "; there are " + (", ".join(parts) or "none")}')
        node, before = parts[name], f'{before}{name}.'
    return node


def _items(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, (list, tuple)):
        return [(str(number), item) for number, item in enumerate(node)]
    return list(node.items()) if hasattr(node, 'items') else []


def leaves(keys: tuple[str, ...], node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The settings in a part; lists of plain values stay whole, and MMEngine's own labels are left out."""
    items = [(name, item) for name, item in _items(node) if name != '_scope_']
    if not items or not (isinstance(node, dict) or any(_items(item) for _, item in items)):
        yield keys, node
        return
    for name, item in items:
        yield from leaves((*keys, name), item)


def place(config: str, keys: tuple[str, ...], options: dict) -> str:
    from scopevit.utils.origins import origin

    key = '.'.join(keys)
    if any(f'{key}.'.startswith(f'{given}.') or given.startswith(f'{key}.') for given in options):
        return '--cfg-options'
    return str(origin(config, keys) or 'computed, or from a config with imports')


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    parser.add_argument('keys', nargs='*', metavar='KEY', help='parts to print, with their places (default: all)')
    args = parser.parse_args()

    from scopevit.utils.config import load_config

    cfg = load_config(args.config, args.cfg_options)
    if not args.keys:
        print(cfg.pretty_text)
    for wanted in args.keys:
        for keys, value in leaves(tuple(wanted.split('.')), part(cfg, wanted)):
            print(f'{".".join(keys)} = {value!r}  # {place(args.config, keys, args.cfg_options or {})}')


if __name__ == '__main__':
    main()
