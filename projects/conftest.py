"""The repository's own test helpers, and the repository on the path."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]


@pytest.fixture(autouse=True)
def toolboxes_as_they_were():
    from helpers import quiet_toolboxes

    with quiet_toolboxes():
        yield
