"""A work dir is one run's."""

import fcntl
import os

import pytest

from scopevit.engine import work_dir


def test_a_folder_is_free_when_the_training_has_ended(tmp_path):
    """Whatever processes of its data loaders are left, which inherit the lock."""
    work_dir._lock(str(tmp_path))
    inherited = work_dir._held[os.path.realpath(tmp_path)]
    with open(tmp_path / work_dir.LOCK) as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        work_dir.let_go()
        assert inherited.closed
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
