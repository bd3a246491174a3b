"""The vocabulary of the tools' command lines: arguments that several have, with one name and one wording each.

A help is to be there at once, so nothing that takes long to import is needed before an argument is used.
"""

import argparse
import glob
import importlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError, leave_it_to_the_first, one_line, user_errors
from .shipped import PACKAGE, tool_command
from .toolboxes import config_path

SCORE_THR = 0.3
"""The lowest score of what is drawn and written unless asked otherwise, as in mmdet's own figures."""
MOST_PIXELS = 2 * 89_478_485
"""An image of more pixels is not decoded unless asked for: Pillow refuses them, too."""
WEIGHTS = ('auto', 'ema', 'raw')
"""Which weights of a checkpoint, see :func:`.checkpoint.select_weights`."""
DTYPES = ('float32', 'bfloat16', 'float16')
"""What models are measured in, by torch's names."""
CAM_METHODS = ('grad-cam', 'layer-cam')
"""Ways to find the evidence of a prediction, see :mod:`scopevit.analysis.evidence`."""
ARCHS = ('xtiny', 'tiny', 'small')
"""Of a ScopeViT."""
NAMINGS = ('mmengine', 'release', 'timm')
"""Whose names the weights of a classifier may have, see :mod:`.weight_names`."""
LOGGERS = dict(
    tensorboard=('TensorboardVisBackend', 'tensorboard'),
    wandb=('WandbVisBackend', 'wandb'),
    mlflow=('MLflowVisBackend', 'mlflow'),
    clearml=('ClearMLVisBackend', 'clearml'),
    neptune=('NeptuneVisBackend', 'neptune'),
    dvclive=('DVCLiveVisBackend', 'dvclive'),
    aim=('AimVisBackend', 'aim'),
)
"""MMEngine's backend and the package that it needs, by the names of ``--log-to``."""


def seed(text: str) -> int:
    """Type of a seed, one that Python, NumPy and PyTorch take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2**32 - 1, but is '{text}'")
    return int(text)


def positive(text: str) -> int:
    """Type of an option that is a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError('must be at least 1')
    return value


def fraction(text: str) -> float:
    """Type of an option that is a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError('must be from 0 to 1')
    return value


def scale(text: str) -> float:
    """Type of an option that is a factor above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError('must be above 0')
    return value


class SizeAction(argparse.Action):
    """Keeps ``--size H W``, or one number for a square, as ``(height, width)``.

    With a list as its default it may be given several times and collects them.
    """

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if len(values) > 2 or not all(value.isdecimal() and int(value) for value in values):
            wanted = 'takes a height and a width of at least 1, or one number for a square'
            raise argparse.ArgumentError(self, f'{wanted}, but got {" ".join(values)}')
        size = int(values[0]), int(values[-1])
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*given, size] if isinstance(given, list) else size)


class ConfigOptions(argparse.Action):
    """Keeps ``--cfg-options KEY=VALUE ...`` as a dict of settings, see :func:`.config.parse_pairs`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *rest: Any) -> None:
        """Add the pairs to those that were given before."""
        from .config import parse_pairs

        wrong = next((pair for pair in values if '=' not in pair), None)
        if wrong is not None:
            parser.error(f'argument {self.option_strings[0]}: {wrong!r} is not of the form KEY=VALUE')
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest, None) or {}), **parse_pairs(values)})


SHARED: dict[str, dict[str, Any]] = {
    'config': dict(metavar='CONFIG', help='config file, or a config of an installed toolbox such as mmdet::...'),
    'checkpoint': dict(metavar='CHECKPOINT', help='checkpoint of the model that the config describes'),
    'images': dict(nargs='+', metavar='IMAGE', help='image files'),
    'predictions': dict(metavar='PREDICTIONS', help='predictions.pkl that tools/test.py wrote for this config'),
    'out': dict(metavar='OUT', help='file to write (.pth, .safetensors)'),
    '--out': dict(metavar='FILE', help='figure to write (default: %(default)s)'),
    '--out-dir': dict(metavar='DIR', help='folder to write to (default: %(default)s)'),
    '--work-dir': dict(metavar='DIR', help='folder for logs and results (default: %(default)s)'),
    '--json': dict(metavar='FILE', help='write all measurements (default: they are only printed)'),
    '--table': dict(metavar='FILE', help='write what is printed, in Markdown (default: it is only printed)'),
    '--plot': dict(metavar='FILE', help='figure to write (default: none)'),
    '--size': dict(
        nargs='+',
        action=SizeAction,
        metavar=('H', 'W'),
        help='height and width, or one for a square (default: %(default)s)',
    ),
    '--batch-size': dict(type=positive, default=8, metavar='N', help='images in a batch (default: %(default)s)'),
    '--count': dict(type=positive, metavar='N', help='how many images (default: %(default)s)'),
    '--rounds': dict(type=positive, metavar='N', help='how often each is measured (default: %(default)s)'),
    '--seed': dict(type=seed, default=0, metavar='N', help='random seed (default: %(default)s)'),
    '--device': dict(help='for example cpu or cuda:1 (default: the GPU if there is one)'),
    '--score-thr': dict(
        type=fraction, default=SCORE_THR, metavar='SCORE', help='lowest score of boxes (default: %(default)s)'
    ),
    '--compile': dict(action='store_true', help='compile the backbone (may take minutes at the start)'),
    '--pixel': dict(nargs=2, type=float, metavar=('X', 'Y'), help='a place in the image (default: its middle)'),
    '--box': dict(
        nargs=4, type=float, metavar=('X', 'Y', 'W', 'H'), help='of the person, for poses (default: the whole image)'
    ),
    '--weights': dict(
        choices=WEIGHTS,
        default='auto',
        help='of a training with --ema its moving average, the raw weights, or (auto) the average if there is one '
        '(default: %(default)s)',
    ),
    '--detector-config': dict(metavar='CONFIG', help='a detector of people, for pose models (default: none)'),
    '--detector-checkpoint': dict(metavar='CHECKPOINT', help='checkpoint of the detector (default: none)'),
    '--detector-category': dict(
        default='person', metavar='NAME', help='class of the detector to take (default: %(default)s)'
    ),
    '--cfg-options': dict(
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, for example train_dataloader.batch_size=64 or model.backbone.arch=small '
        '(texts with commas: "KEY=\'a, b\'"; default: none)',
    ),
}
"""What a name means wherever it stands; CONTRIBUTING.md has the table."""


def require_own_package(script: Path) -> None:
    """End if a checkout's tool would run with the package of another checkout, as where two share an environment.

    A package that was installed without a checkout, by ``pip install .``, may be of this one.
    """
    is_of_checkout = (PACKAGE.parent / 'tools' / 'train.py').is_file()
    for folder in script.absolute().parents if is_of_checkout and script.is_file() else ():
        package = folder.parent / 'scopevit'
        if folder.name == 'tools' and (package / '__init__.py').is_file() and not package.samefile(PACKAGE):
            sys.exit(
                f'error: this is a tool of {folder.parent}, but the scopevit that is installed is {PACKAGE}: '
                f'put PYTHONPATH={folder.parent} in front, or install this one by bash tools/setup.sh'
            )


def _require_checkpoint(name: str) -> None:
    if '://' not in name and not os.path.exists(name):
        raise UserError(f'checkpoint {name} does not exist; check the path')


def _require_image(name: str) -> None:
    if not os.path.exists(name):
        raise UserError(f'image {name} does not exist; check the path')


def _require_input(name: str) -> None:
    if not os.path.exists(name) and not glob.has_magic(name):
        raise UserError(f'input {name} does not exist; check the path')


def _require_predictions(name: str) -> None:
    if not os.path.exists(name):
        raise UserError(f'{name} does not exist; {tool_command("test.py", "test")} writes it')


_READ: dict[str | tuple | None, Callable[[str], object]] = dict(
    CONFIG=config_path,
    CHECKPOINT=_require_checkpoint,
    IMAGE=_require_image,
    INPUT=_require_input,
    PREDICTIONS=_require_predictions,
)
"""What makes sure that a file is there, by the metavar of the arguments that name one to read."""


class _ToolParser(argparse.ArgumentParser):
    """Refuses what is wrong at once, files that do not exist included, and registers the backbone behind that."""

    needs_torch = True

    def error(self, message: str) -> NoReturn:
        leave_it_to_the_first()
        super().error(message)

    def parse_args(self, *args: Any, **options: Any) -> Any:
        parsed = super().parse_args(*args, **options)
        with user_errors():
            self._require_files(parsed)
        if self.needs_torch:
            importlib.import_module(PACKAGE.name).load()
        return parsed

    def _require_files(self, parsed: argparse.Namespace) -> None:
        for action in self._actions:
            require, given = _READ.get(action.metavar), getattr(parsed, action.dest, None)
            if require and given not in (None, action.const):  # the constant is that of --resume without a file
                for name in given if isinstance(given, list) else [given]:
                    require(name)


def tool_parser(doc: str | None, needs_torch: bool = True, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help begins with a tool's docstring, and which takes no option by the first letters alone.

    Args:
        needs_torch: Whether the tool needs torch and the backbone, which are imported behind its arguments.
    """
    require_own_package(Path(sys.argv[0]))
    style = argparse.RawDescriptionHelpFormatter
    parser = _ToolParser(description=doc, formatter_class=style, allow_abbrev=False, **options)
    parser.needs_torch = needs_torch
    return parser


def add_arguments(parser: argparse._ActionsContainer, *names: str, **changes: Any) -> None:
    """Add arguments of :data:`SHARED` to a parser or to a group of one, with ``config`` also ``--cfg-options``.

    Args:
        changes: What is otherwise for these arguments here, as ``default`` or ``help``.
    """
    for name in names:
        parser.add_argument(name, **{**SHARED[name], **changes})
    if 'config' in names:
        add_arguments(parser, '--cfg-options')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
    add_arguments(parser, '--work-dir', help='folder for logs and results (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='how processes were started (default: %(default)s)',
    )
    add_arguments(parser, '--compile')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def require_device(name: str) -> None:
    """Make sure that a device can be computed on.

    Raises:
        UserError: If not.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {name} cannot be used here: {one_line(error)}') from error
