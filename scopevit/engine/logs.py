"""Logs that cannot be written, on a full disk for example, do not end a run, and curves go on after a resume."""

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mmengine.dist import master_only
from mmengine.runner import Runner
from mmengine.visualization import Visualizer


def survive_unwritable_logs(logger: logging.Logger) -> None:
    """Let a logger go on if its lines cannot be written; another error in a line is shown as ever."""
    for handler in logger.handlers:
        usual, where = handler.handleError, getattr(handler, 'baseFilename', 'the screen')

        def handle(record: logging.LogRecord, usual: Callable = usual, where: str = where) -> None:
            error = sys.exc_info()[1]
            if isinstance(error, OSError):
                _say_once(where, error.strerror)
            else:
                usual(record)

        handler.handleError = handle  # type: ignore[method-assign]


def survive_unwritable_curves(visualizer: Visualizer) -> None:
    """Let a visualizer go on if scalars cannot be written."""
    usual = visualizer.add_scalars

    def add_scalars(*args: Any, **options: Any) -> None:
        try:
            usual(*args, **options)
        except OSError as error:
            _say_once(error.filename or 'the curves', error.strerror)

    visualizer.add_scalars = add_scalars


@master_only
def tell_iteration(runner: Runner) -> None:
    """Let Weights & Biases know after which iteration a training validates that has logged no loss yet."""
    backend = runner.visualizer.get_backend('WandbVisBackend')
    if backend is not None:
        backend.add_scalar('iter', runner.iter)


@functools.cache
def _say_once(where: str, reason: str | None) -> None:
    with suppress(OSError):
        print(f'warning: {where}: lines are missing ({reason}); the run goes on', file=sys.stderr, flush=True)
