"""Logs that cannot be written, on a full disk for example, are said once and do not end a run."""

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

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


@functools.cache
def _say_once(where: str, reason: str | None) -> None:
    with suppress(OSError):
        print(f'warning: {where}: lines are missing ({reason}); the run goes on', file=sys.stderr, flush=True)
