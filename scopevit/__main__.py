"""The tools by one command: ``scopevit train CONFIG ...``, or ``python -m scopevit train CONFIG ...``.

    scopevit [COMMAND [ARGUMENTS]]

Without a command it lists them; ``scopevit COMMAND --help`` tells a command's arguments.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

from .utils.errors import did_you_mean, unread_output
from .utils.shipped import shipped

# Command: what it runs, a file of tools/ or a module, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    'train': ('train.py', 'train a model from a config'),
    'test': ('test.py', 'test a checkpoint'),
    'launch': ('launch.py', 'train or test in several processes, one for each GPU: scopevit launch NPROC train ...'),
    'predict': ('predict.py', 'predict for images, folders and videos'),
    'demo': ('demo.py', 'try a model in the browser'),
    'swap': ('swap_backbone.py', 'put ScopeViT into another config of the toolboxes'),
    'list': ('analysis/list_configs.py', 'list configs, or backbones, with their parameters, MACs and results'),
    'print-config': ('analysis/print_config.py', 'print a config with all that it inherits, and from where'),
    'analyze': ('analysis/analyze_predictions.py', 'read the predictions of a test: classes, confusions, worst images'),
    'curves': ('visualization/plot_curves.py', "draw the curves of a training's losses and metrics"),
    'browse': ('visualization/browse_dataset.py', 'draw images as a training sees them'),
    'draw': ('visualization/draw_predictions.py', 'draw the predictions of a test beside the ground truth'),
    'scopes': ('visualization/scopes.py', 'draw what the scopes of a network attend to'),
    'cam': ('visualization/cam.py', 'draw where in images predictions have their evidence'),
    'check': ('data/check_dataset.py', "check a config's data before a training"),
    'boxes-to-coco': ('data/boxes_to_coco.py', "convert boxes of Pascal VOC or YOLO to a file in COCO's format"),
    'data-time': ('analysis/data_time.py', 'measure whether a training waits for its data'),
    'flops': ('analysis/get_flops.py', 'count parameters and multiply-accumulates'),
    'benchmark': ('analysis/benchmark.py', 'measure speed and memory of models side by side'),
    'average': ('converters/average_checkpoints.py', "average a training's checkpoints"),
    'publish': ('converters/publish_model.py', 'take from a checkpoint all but its weights, to pass them on'),
    'rename-weights': ('converters/rename_weights.py', "rename a checkpoint's weights for timm or the paper's code"),
    'deploy': ('converters/deploy_model.py', 'write an equal, faster form of a model'),
    'export': ('export/onnx_export.py', 'export a model to ONNX'),
    'toolbox': ('toolbox.py', 'run a tool that an installed toolbox brings, or list them'),
    'doctor': ('scopevit.stack.doctor', 'examine the machine and the installed packages'),
    'install-mmpose': ('scopevit.stack.mmpose', 'install mmpose, which pip alone cannot'),
    'install-mmcv': ('scopevit.stack.mmcv_operators', "build mmcv with its own operators, in mmcv-lite's place"),
}


def usage() -> str:
    listed = '\n'.join(f'  {name:16}{what}' for name, (_, what) in COMMANDS.items())
    return f'usage: scopevit COMMAND [ARGUMENTS]\n\ncommands (scopevit COMMAND --help tells more):\n{listed}'


def run_file(path: Path) -> None:
    """Run a file as the main program. ``runpy`` would put its name into ``sys.argv``, and so into its usage."""
    spec = importlib.util.spec_from_file_location('__main__', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__spec__ = None  # as that of a script, by which argparse and multiprocessing know one
    sys.modules['__main__'] = module
    spec.loader.exec_module(module)


def main() -> None:
    with unread_output():
        run(sys.argv[1:])


def run(arguments: list[str]) -> None:
    """Run a command, or tell which there are."""
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        return
    command, *arguments = arguments
    if command not in COMMANDS:
        hint = did_you_mean(command, list(COMMANDS))
        print(f'{usage()}\n\nerror: there is no command {command}{hint}', file=sys.stderr)
        sys.exit(2)
    target, _ = COMMANDS[command]
    sys.argv = [f'scopevit {command}', *arguments]
    if target.endswith('.py'):
        run_file(shipped('tools') / target)
    else:
        runpy.run_module(target, run_name='__main__')


if __name__ == '__main__':
    main()
