"""A work dir is one run's."""

import fcntl
import os

import pytest
from mmengine.config import Config

from scopevit.engine import work_dir
from scopevit.utils.errors import UserError


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


@pytest.mark.parametrize(
    ('saving', 'saved'),
    [
        ({}, 'run/epoch_2.pth'),
        ({}, 'run/interrupted_iter_7.pth'),
        (dict(filename_tmpl='ck_{}.pth'), 'run/ck_2.pth'),
        (dict(filename_tmpl='ck_{:03d}.pt'), 'run/ck_002.pt'),
        (dict(filename_tmpl='newest.pth'), 'run/newest.pth'),
        (dict(out_dir='elsewhere'), 'elsewhere/run/iter_2.pth'),
        (dict(out_dir='elsewhere', filename_tmpl='ck_{}.pth'), 'elsewhere/run/ck_2.pth'),
    ],
)
def test_another_runs_checkpoints_are_not_overwritten(saving, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (saved, 'run/pretrained.pth', 'elsewhere/other/epoch_1.pth', 'run/ck_best.pth'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    hooks = dict(checkpoint=dict(type='CheckpointHook', **saving))
    cfg = Config(dict(work_dir='run', default_hooks=hooks))
    assert [os.path.normpath(path) for path in work_dir.saved_checkpoints(cfg)] == [saved]
    with pytest.raises(UserError, match=f'has checkpoints of another run .*{os.path.basename(saved)}'):
        work_dir.claim_work_dir(cfg)
    cfg.update(resume=True, load_from=saved)
    work_dir.claim_work_dir(cfg)
    cfg.update(resume=False, load_from=None)
    (tmp_path / saved).unlink()
    work_dir.claim_work_dir(cfg)
    work_dir.let_go()


def test_what_last_checkpoint_names_elsewhere_is_not_overwritten(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'x.pth'))  # of a folder that was copied
    (tmp_path / 'x.pth').touch()
    work_dir.claim_work_dir(Config(dict(work_dir=str(tmp_path / 'run'))))
    work_dir.let_go()
