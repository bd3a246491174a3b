"""A training that was stopped and goes on is the one that was never stopped, bit for bit."""

import fcntl
import json
import os
import shutil
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper

from helpers import ROOT, fails_cleanly, quiet_toolboxes, small_config, tool, tool_here
from scopevit.engine.hooks import PretrainedBackboneHook
from scopevit.engine.launch import build_runner
from scopevit.engine.resume import (
    ScheduleOfConfig,
    find_checkpoint,
    read_resumable,
    require_fitting_start,
    settle_resume,
)
from scopevit.utils import checkpoint
from scopevit.utils.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from scopevit.utils.errors import UserError

RANDOM = ROOT / 'tests' / 'data' / 'random_classifier.py'
ITERATIONS = ROOT / 'tests' / 'data' / 'random_iterations.py'
# Sends this process a signal after an iteration, as a scheduler would; if its number is negative, in the validation.
STOPPER = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Stopper(Hook):
    priority = 'VERY_HIGH'

    def __init__(self, iteration, name):
        self.iteration, self.name = iteration, name

    def after_train_iter(self, runner, *args, **options):
        if runner.iter + 1 == self.iteration and os.environ.get('RANK', '0') == '0':
            for _ in range(2):  # launchers often send several at once
                os.kill(os.getpid(), getattr(signal, self.name))

    def after_val_iter(self, runner, *args, **options):
        if runner.iter == -self.iteration:
            os.kill(os.getpid(), getattr(signal, self.name))
"""


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a == b


def validated(folder):
    """The results of all validations, whichever start of the run they are of."""
    lines = [line for path in sorted(folder.glob('*/vis_data/scalars.json')) for line in path.read_text().splitlines()]
    return [json.loads(line)['accuracy/top1'] for line in lines if 'accuracy/top1' in line]


def last(work_dir):
    return read_checkpoint((work_dir / 'last_checkpoint').read_text())


@pytest.fixture(scope='module')
def train(fashion_mnist, tmp_path_factory):
    """Trains the random config in a folder; with ``stop`` it is sent a signal after that iteration."""
    folder = tmp_path_factory.mktemp('resume')
    (folder / 'stopper.py').write_text(STOPPER)
    loaders = [f'{split}_dataloader.dataset.data_root={fashion_mnist}' for split in ('train', 'val', 'test')]

    def run(name, *words, stop=None, signal='SIGTERM', options=(), processes=1, base=RANDOM):
        options = [*loaders, *options]
        config = folder / f'{name}_{stop}.py'
        config.write_text(f'_base_ = {str(base)!r}\n')
        if stop is not None:
            config.write_text(
                config.read_text() + "custom_imports = dict(imports=['stopper'])\n"
                f"custom_hooks = [*_base_.custom_hooks, dict(type='Stopper', iteration={stop}, name={signal!r})]\n"
            )
        start = ('train.py', config) if processes == 1 else ('dist_train.sh', config, processes)
        environment = {'PYTHONPATH': f'{folder}:{ROOT}', 'OMP_NUM_THREADS': '1'}
        words = ('--work-dir', folder / name, *words, '--cfg-options', *options)
        result = tool(*start, *words, env=environment, check=False)
        if stop is None:
            assert result.returncode == 0, result.stderr[-3000:]
        return folder / name, result

    return run


def write_run(folder, *steps, **meta):
    """Checkpoints of a run, the later ones newer."""
    for step in steps:
        path = folder / f'epoch_{step}.pth'
        state = dict(state_dict=dict(w=torch.ones(1000)), optimizer={}, message_hub={})
        save_checkpoint(dict(state, meta={**dict(epoch=step, iter=5 * step), **meta}), path)
        os.utime(path, (step, step))
    (folder / 'last_checkpoint').write_text(str(path))


def test_newest_whole_checkpoint_is_found(tmp_path):
    write_run(tmp_path, 1, 2, 3)
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_3.pth')
    whole = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])  # a save that was cut off
    found = find_checkpoint(tmp_path)
    assert found.path == str(tmp_path / 'epoch_2.pth')
    assert [os.path.basename(path) for path, _ in found.passed_over] == ['epoch_3.pth']
    damaged = bytearray(whole)
    damaged[whole.index(bytes.fromhex('0000803f') * 8) + 2] ^= 1  # one bit of a weight
    (tmp_path / 'epoch_3.pth').write_bytes(damaged)
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_2.pth')


def test_a_later_checkpoint_that_is_not_named_yet_is_the_newest(tmp_path):
    """A run may be killed before it can name what it has saved; one that went back is not fooled by older files."""
    write_run(tmp_path, 1, 2, 3)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    (tmp_path / 'latest.pth').symlink_to('nowhere.pth')
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_3.pth')
    os.utime(tmp_path / 'epoch_3.pth', (1, 1))
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_2.pth')
    interrupted = tmp_path / 'interrupted_iter_12.pth'  # which a signal caused, between the epochs
    interrupted.write_bytes((tmp_path / 'epoch_2.pth').read_bytes())
    assert find_checkpoint(tmp_path).path == str(interrupted)
    os.utime(interrupted, (1, 1))
    assert find_checkpoint(tmp_path).path == str(tmp_path / 'epoch_2.pth')


def test_a_copied_folder_goes_on_with_its_own_checkpoint(tmp_path):
    (tmp_path / 'a').mkdir()
    write_run(tmp_path / 'a', 1, 2)
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    assert find_checkpoint(tmp_path / 'b').path == str(tmp_path / 'b' / 'epoch_2.pth')


@pytest.mark.parametrize('content', ['', '/somewhere/else/epoch_2.pth', '/somewhere/else/nothing.pth', '\xff'])
def test_checkpoint_is_found_whatever_last_checkpoint_says(content, tmp_path):
    write_run(tmp_path, 1, 2, 3)
    if 'epoch_2' in content:  # the run went back to it
        os.utime(tmp_path / 'epoch_3.pth', (1, 1))
    (tmp_path / 'last_checkpoint').write_bytes(content.encode('latin-1'))
    assert find_checkpoint(tmp_path).path == str(tmp_path / f'epoch_{2 if "epoch_2" in content else 3}.pth')


@pytest.mark.parametrize('name', ['last_checkpoint', 'ck_2.pth'])
def test_checkpoints_in_a_folder_and_under_names_of_the_configs_own_are_found(name, tmp_path):
    for folder in ('run', 'out/run'):
        (tmp_path / folder).mkdir(parents=True)
    write_run(tmp_path / 'out' / 'run', 1, 2)
    for step in (1, 2):
        (tmp_path / f'out/run/epoch_{step}.pth').rename(tmp_path / f'out/run/ck_{step}.pth')
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'out/run/ck_1.pth'))
    if name == 'last_checkpoint':  # else a later one is there, which the run was killed before it could name
        (tmp_path / 'run/last_checkpoint').unlink()
    hook = dict(type='CheckpointHook', out_dir=str(tmp_path / 'out'), filename_tmpl='ck_{}.pth')
    cfg = Config(dict(work_dir=str(tmp_path / 'run'), resume=True, default_hooks=dict(checkpoint=hook)))
    assert settle_resume(cfg)['meta']['epoch'] == 2
    assert cfg.load_from == str(tmp_path / 'out/run/ck_2.pth')


def test_folder_without_checkpoints_and_one_without_whole_ones(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), resume=True))
    settle_resume(cfg)
    assert not cfg.resume
    (tmp_path / 'epoch_1.pth').write_bytes(b'half')
    cfg.resume = True
    with pytest.raises(UserError, match='no training can go on from any checkpoint'):
        settle_resume(cfg)


@pytest.mark.parametrize('epoch', [10**9, 6, -1, 'x', None, True])
def test_damaged_position_is_refused(epoch, tmp_path):
    write_run(tmp_path, 1, epoch=epoch)
    with pytest.raises(CheckpointError, match='its epoch is'):
        read_resumable(str(tmp_path / 'epoch_1.pth'))


def test_nothing_of_a_checkpoint_is_executed(tmp_path):
    write_run(tmp_path, 1, config=f'open({str(tmp_path / "proof")!r}, "w")\ngpu_ids = [0]\n')
    path = str(tmp_path / 'epoch_1.pth')
    assert 'config' not in read_resumable(path)['meta']
    with pytest.raises(CheckpointError, match='would execute'):  # other runners read the file themselves
        settle_resume(Config(dict(work_dir=str(tmp_path), resume=True, load_from=path, runner_type='FlexibleRunner')))


@pytest.fixture
def runner(tmp_path):
    """Builds the Runner of a small classifier."""

    def build(given=None, **settings):
        cfg = small_config()
        cfg.update(work_dir=str(tmp_path / 'run'), **settings)
        return build_runner(cfg, settle_resume(cfg), given)

    with quiet_toolboxes():
        yield build


def test_the_saved_config_says_what_it_was_given_and_not_how_this_start_went_on(runner, tmp_path):
    write_run(tmp_path, 1)
    path, given = str(tmp_path / 'epoch_1.pth'), dict(load_from='weights.pth', resume=False)
    built = runner(given, load_from=path, resume=True)
    assert (built._load_from, built._resume, built.resumed_from['meta']['epoch']) == (path, True, 1)
    (saved,) = (tmp_path / 'run').glob('*.py')
    for cfg in (Config.fromfile(saved), built.cfg):  # a checkpoint holds the latter
        assert (cfg.load_from, cfg.resume) == ('weights.pth', False)


def test_a_file_to_start_from_is_read_in_every_format_and_by_no_other_reader(runner, tmp_path, monkeypatch):
    before = runner().model.state_dict()
    weights = {key: value + 1 for key, value in before.items()}
    for name in ('w.pth', 'w.safetensors'):
        save_checkpoint(dict(state_dict=weights, meta={}), str(tmp_path / name))
        if name == 'w.safetensors':
            monkeypatch.delattr(torch, 'load')  # which reads this format in newer versions
        built = runner(load_from=str(tmp_path / name), experiment_name=name)
        built.load_or_resume()
        assert equal(dict(built.model.state_dict()), weights)


def test_a_resumed_training_keeps_its_backbone_at_iteration_0_too(runner, tmp_path):
    """Where the first epoch begins again, in another number of processes."""
    built = runner()
    before = {key: value.clone() for key, value in built.model.state_dict().items()}
    save_checkpoint(dict(state_dict={key: value + 1 for key, value in before.items()}), str(tmp_path / 'w.pth'))
    start = PretrainedBackboneHook(str(tmp_path / 'w.pth'))
    built = SimpleNamespace(iter=0, model=built.model, logger=built.logger, _resume=True, _has_loaded=True)
    start.before_train(built)
    assert equal(dict(built.model.state_dict()), before)
    built._has_loaded = False  # --resume without a checkpoint begins
    start.before_train(built)
    assert not equal(dict(built.model.state_dict()), before)


FORMS = {
    'flat': dict,
    'of a wrapped model': lambda weights: {f'module.{key}': value for key, value in weights.items()},
    'model': lambda weights: dict(model=weights, epoch=3),
    'averaged alone': lambda weights: dict(state_dict_ema=weights),
    'averaged by timm': lambda weights: dict(state_dict=opposite(weights), state_dict_ema=weights),
    'averaged by MMEngine': lambda weights: dict(
        state_dict=weights, ema_state_dict={f'module.{key}': value for key, value in opposite(weights).items()}
    ),
}


def opposite(weights):
    return {key: -value for key, value in weights.items()}


def test_a_training_starts_from_the_weights_that_were_checked_wherever_they_lie_in_the_file(runner, tmp_path):
    path = str(tmp_path / 'w.pth')
    built = runner(load_from=path, custom_hooks=[dict(type='mmengine.EMAHook', update_buffers=True)])
    (average,) = (hook for hook in built.hooks if isinstance(hook, EMAHook))
    average.before_run(built)
    for form, nested in FORMS.items():
        weights = {key: value + 1 for key, value in built.model.state_dict().items()}
        torch.save(nested(weights), path)
        require_fitting_start(built.cfg, built, None)
        built.load_checkpoint(path)
        assert equal(dict(built.model.state_dict()), weights), form
        assert equal(dict(average.ema_model.module.state_dict()), weights), form


def test_weights_at_an_address_are_found_as_those_of_a_file(runner, tmp_path, monkeypatch):
    weights = {key: value + 1 for key, value in runner().model.state_dict().items()}
    torch.save(dict(model=weights), tmp_path / 'w.pth')
    monkeypatch.setattr(checkpoint, 'get_local_path', lambda address: nullcontext(str(tmp_path / 'w.pth')))
    built = runner(load_from='https://example.org/w.pth', experiment_name='address')
    built.load_or_resume()
    assert equal(dict(built.model.state_dict()), weights)


@pytest.fixture(scope='module')
def straight(train):
    folder, _ = train('straight')
    return {**last(folder), 'validated': validated(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('iteration', 'sent', 'status'), [(4, 'SIGTERM', 143), (6, 'SIGINT', 130), (-12, 'SIGTERM', 143)]
)
def test_stopped_and_resumed_training_is_the_uninterrupted_one(train, straight, iteration, sent, status):
    name = f'stopped_{iteration}'
    work_dir, result = train(name, stop=iteration, signal=sent)
    assert result.returncode == status, result.stderr[-3000:]
    assert f'{sent}: saved' in result.stdout + result.stderr
    assert 'Traceback' not in result.stderr
    assert last(work_dir)['meta']['iter'] == abs(iteration)
    train(name, '--resume')
    assert validated(work_dir) == straight['validated']  # also if it was stopped before or in one
    resumed = last(work_dir)
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert equal(resumed[key], straight[key]), key
    assert not list(work_dir.glob('interrupted_*'))


@pytest.mark.slow
def test_training_by_iterations_goes_on_with_the_seed_that_it_drew(train):
    """Stopped twice, within a pass through the data, and once by two signals."""
    work_dir, result = train('iterations', base=ITERATIONS, stop=2, signal='SIGUSR1')
    assert result.returncode == 128 + signal.SIGUSR1, result.stderr[-3000:]
    seed = last(work_dir)['meta']['seed']
    result = train('iterations', '--resume', base=ITERATIONS, stop=6, signal='SIGHUP')[1]
    assert result.returncode == 128 + signal.SIGHUP, result.stderr[-3000:]
    assert len(list(work_dir.glob('interrupted_*'))) == 1
    train('iterations', '--resume', base=ITERATIONS)
    straight, _ = train('undisturbed', '--seed', seed, base=ITERATIONS)
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert equal(last(work_dir)[key], last(straight)[key]), key


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_as_if_they_never_had(train):
    """One of them is told to stop; they have statistics of their own in the middle of an epoch."""
    straight = last(train('straight_2', processes=2, options=['train_cfg.max_epochs=2'])[0])
    work_dir, result = train('stopped_2', processes=2, options=['train_cfg.max_epochs=2'], stop=1)
    assert result.returncode == 143, result.stderr[-3000:]
    assert 'Traceback' not in result.stderr
    assert (result.stdout + result.stderr).count('SIGTERM: saved') == 1
    train('stopped_2', '--resume', processes=2, options=['train_cfg.max_epochs=2'])
    resumed = last(work_dir)
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert equal(resumed[key], straight[key]), key


@pytest.mark.slow
def test_settings_that_change_between_a_run_and_its_resume_take_effect(train):
    """A longer schedule has the learning rates that it would have had from the beginning."""
    train('short', options=['train_cfg.max_epochs=1', 'param_scheduler.1.end=1'])
    longer = ['train_cfg.max_epochs=2', 'param_scheduler.1.end=2']
    work_dir, result = train('short', '--resume', options=longer)
    assert 'train_cfg.max_epochs' in result.stdout + result.stderr
    saved = Config.fromfile(work_dir / 'short_None.py')  # a training of it begins, and does not go on from this one
    assert (saved.load_from, saved.resume) == (None, False)
    expected = last(train('long', options=longer)[0])
    rates = [[group['lr'] for group in run['optimizer']['param_groups']] for run in (last(work_dir), expected)]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.slow
def test_a_folder_is_one_runs(train, tmp_path):
    best = ["default_hooks.checkpoint.save_best=['accuracy/top1', 'accuracy/top3']", 'val_evaluator.topk=(1, 3)']
    work_dir, _ = train('mine', options=['train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=1', *best])
    assert sorted(path.name for path in work_dir.glob('epoch_*.pth')) == ['epoch_2.pth']
    assert len(list(work_dir.glob('best_*.pth'))) == 2
    assert not list(work_dir.glob('.unfinished_*'))
    other = tool_here('train.py', RANDOM, '--work-dir', work_dir)
    fails_cleanly(other, 'checkpoints of another run', '--resume', '--work-dir')
    with open(work_dir / '.training') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fails_cleanly(
            tool_here('train.py', RANDOM, '--work-dir', work_dir, '--resume'),
            'another training runs',
            'process',
        )


@pytest.mark.parametrize('fused', [True, False])
def test_an_optimizer_goes_on_in_the_form_that_it_was_built_in(fused):
    """A gradient scaler hands one that was built as fused what another does not take."""
    model = torch.nn.Linear(2, 2)
    before, now = (torch.optim.Adam(model.parameters(), lr=0.1, fused=form) for form in (not fused, fused))
    model(torch.ones(1, 2)).sum().backward()
    before.step()
    saved = before.state_dict()
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(now), param_schedulers=[])
    ScheduleOfConfig(runner).keep_forms(saved)
    runner.optim_wrapper.load_state_dict(saved)
    assert now.param_groups[0]['fused'] is fused
    now.step()
    assert [float(state['step']) for state in now.state.values()] == [2, 2]
