"""The scenes' trainings of every toolbox go on bit for bit after they were stopped in the middle of an epoch."""

import os
import signal

import pytest

from helpers import ROOT, load_tool, tool_here
from scopevit.engine.preemption import StopHook
from scopevit.utils.checkpoint import read_checkpoint

faults = load_tool(ROOT / 'projects' / 'reliability' / 'faults.py')
CONFIGS = ROOT / 'projects' / 'scenes' / 'configs'
TASKS = dict(
    classification='32px', retinanet='retinanet', mask='mask-rcnn', fpn='fpn_2xb4-4e', upernet='upernet', pose='td-hm'
)
STOPPED_AFTER = 5


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes')
    tool_here(
        ROOT / 'projects' / 'scenes' / 'make_scenes.py',
        '--out-dir',
        root / 'data' / 'scenes',
        '--count',
        12,
        2,
        check=True,
    )
    return root


@pytest.fixture
def train(scenes, monkeypatch):
    """Train two epochs of three iterations in this process, which may be sent SIGTERM within the second."""
    usual = StopHook.after_train_iter

    def run(task, work_dir, *words, stopped=False):
        (config,) = CONFIGS.glob(f'*{TASKS[task]}*.py')

        def after_train_iter(self, runner, *args, **options):
            if stopped and runner.iter + 1 == STOPPED_AFTER:
                os.kill(os.getpid(), signal.SIGTERM)
            usual(self, runner, *args, **options)

        monkeypatch.setattr(StopHook, 'after_train_iter', after_train_iter)
        options = ['train_cfg.max_epochs=2', 'train_dataloader.batch_size=4', 'default_hooks.checkpoint.interval=1']
        result = tool_here('train.py', config, '--work-dir', work_dir, *words, '--cfg-options', *options, cwd=scenes)
        assert result.returncode == (128 + signal.SIGTERM if stopped else 0), result.stderr[-3000:]
        return read_checkpoint((work_dir / 'last_checkpoint').read_text())

    return run


@pytest.mark.slow
@pytest.mark.parametrize(('task', 'amp'), [('retinanet', ()), ('pose', ()), ('fpn', ('--amp',))])
def test_stopped_and_resumed_is_the_uninterrupted_one(task, amp, train, tmp_path):
    straight = train(task, tmp_path / 'straight', '--seed', 3, *amp)
    stopped = train(task, tmp_path / 'stopped', '--seed', 3, *amp, stopped=True)
    assert stopped['meta']['iter'] == STOPPED_AFTER < straight['meta']['iter']
    resumed = train(task, tmp_path / 'stopped', '--resume', *amp)
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert faults.equal(resumed[key], straight[key]), key
