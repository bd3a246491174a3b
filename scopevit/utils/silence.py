"""Keeping from the screen what libraries say of themselves, which would drown what a tool says of its inputs."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def silence(prints: bool = False) -> Iterator[None]:
    """Keep warnings and what libraries log of themselves from the screen, with ``prints`` also what they print."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.INFO)
    try:
        with (
            redirect_stdout(nowhere if prints else sys.stdout),
            redirect_stderr(nowhere if prints else sys.stderr),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


def silence_toolboxes() -> None:
    """Hide what toolboxes say of their own settings, from now on."""
    warnings.filterwarnings('ignore')
    from mmengine.logging import MMLogger  # the doctor runs without MMEngine, too

    MMLogger.get_instance('scopevit', log_level='ERROR')
