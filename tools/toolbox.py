"""Run a tool that an installed toolbox brings, with ScopeViT registered.

    scopevit toolbox                                     # the toolboxes' tools
    scopevit toolbox mmdet                               # of one
    scopevit toolbox mmdet browse_dataset CONFIG --not-show --output-dir out

TOOL is a name that is listed, or its last part where only one tool ends so. All that follows is the tool's, --help
too; configs may be named by their toolbox (mmdet::..., scopevit::...).
"""

import argparse
import importlib.util
import os
import runpy
import sys
from pathlib import Path

import scopevit
from scopevit.utils.arguments import tool_parser
from scopevit.utils.errors import UserError, did_you_mean, user_errors
from scopevit.utils.toolboxes import TOOLBOXES, config_path, described, find_tool, list_tools


def show(toolbox: str) -> None:
    names = list_tools(toolbox)
    width = max(map(len, names))
    for name, path in names.items():
        print(f'{toolbox} {name:{width}}  {described(path)}'.rstrip())


def as_file(argument: str) -> str:
    """The file of a config that is named by its toolbox; anything else as it is."""
    scope, mark, _ = argument.partition('::')
    return config_path(argument) if mark and scope in (*TOOLBOXES, 'scopevit') else argument


def start(path: Path, arguments: list[str]) -> None:
    """Run a tool as if Python or bash had been started with it."""
    if path.suffix == '.sh':
        folder = os.path.dirname(sys.executable)  # whose python it is to start
        os.execvpe('bash', ['bash', str(path), *arguments], {**os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}'})
    sys.argv = [str(path), *arguments]
    sys.path[0] = str(path.parent)  # where it finds the files beside it
    runpy.run_path(str(path), run_name='__main__')


def main() -> None:
    parser = tool_parser(__doc__, needs_torch=False)
    parser.add_argument('toolbox', nargs='?', metavar='TOOLBOX', help=f'{", ".join(TOOLBOXES)} (default: all)')
    parser.add_argument(
        'tool', nargs='?', metavar='TOOL', help='which tool; without it those of the toolbox are listed'
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='ARGUMENTS', help="the tool's own")
    args = parser.parse_args()

    with user_errors():
        if args.toolbox is not None and args.toolbox not in TOOLBOXES:
            hint = did_you_mean(args.toolbox, list(TOOLBOXES), cutoff=0.4)
            raise UserError(f'there is no toolbox {args.toolbox}, but {", ".join(TOOLBOXES)}{hint}')
        if args.tool is None:
            found = [name for name in TOOLBOXES if importlib.util.find_spec(name)]
            for name in [args.toolbox] if args.toolbox else found:
                show(name)
            return
        path = find_tool(args.toolbox, args.tool)
        arguments = [as_file(argument) for argument in args.arguments]
        scopevit.load()  # registers the backbone, and lets checkpoints be loaded
    start(path, arguments)


if __name__ == '__main__':
    main()
