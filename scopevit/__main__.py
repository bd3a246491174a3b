"""The tools by one command: ``scopevit train CONFIG ...``, or ``python -m scopevit train CONFIG ...``.

    scopevit [COMMAND [ARGUMENTS]]

Without a command it lists them; ``scopevit COMMAND --help`` tells a command's arguments.
"""

import difflib
import runpy
import sys

from .utils.shipped import shipped

# Command: what it runs, a file of tools/ or a module, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    'train': ('train.py', 'train a model from a config'),
    'test': ('test.py', 'test a checkpoint'),
    'predict': ('predict.py', 'predict for images, folders and videos'),
    'demo': ('demo.py', 'try a model in the browser'),
    'swap': ('swap_backbone.py', 'put ScopeViT into another config of the toolboxes'),
    'list': ('analysis/list_configs.py', 'list configs with their parameters, MACs and results'),
    'print-config': ('analysis/print_config.py', 'print a config with all that it inherits, and from where'),
    'check': ('data/check_dataset.py', "check a config's data before a training"),
    'flops': ('analysis/get_flops.py', 'count parameters and multiply-accumulates'),
    'benchmark': ('analysis/benchmark.py', 'measure speed and memory of models side by side'),
    'doctor': ('scopevit.stack.doctor', 'examine the machine and the installed packages'),
    'install-mmpose': ('scopevit.stack.mmpose', 'install mmpose, which pip alone cannot'),
}


def usage() -> str:
    listed = '\n'.join(f'  {name:16}{what}' for name, (_, what) in COMMANDS.items())
    return f'usage: scopevit COMMAND [ARGUMENTS]\n\ncommands (scopevit COMMAND --help tells more):\n{listed}'


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        return
    command, *arguments = arguments
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f'; did you mean {close[0]}?' if close else ''
        print(f'{usage()}\n\nerror: there is no command {command}{hint}', file=sys.stderr)
        sys.exit(2)
    target, _ = COMMANDS[command]
    sys.argv = [f'scopevit {command}', *arguments]
    if target.endswith('.py'):
        runpy.run_path(str(shipped('tools') / target), run_name='__main__')
    else:
        runpy.run_module(target, run_name='__main__')


if __name__ == '__main__':
    main()
