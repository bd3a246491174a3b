"""Training and testing from the command line, in one process and in several, and what can go wrong."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.config import Config

from helpers import ROOT, TOY, fails_cleanly, image_folders, tool, tool_here
from reference.weights import fill
from scopevit.models import ScopeViT
from scopevit.utils.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


def weights(path):
    return read_checkpoint(path)['state_dict']


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def start(log, *words):
    """Start a tool without waiting for it, in a process group of its own; its output goes to a file."""
    command = [str(word) for word in words]
    environment = dict(os.environ, PYTHON=sys.executable)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log.open('w'), stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(condition, timeout=120):
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, 'nothing happened in time'
        time.sleep(0.02)


def test_training_writes_checkpoints_and_logs(toy_run):
    assert (toy_run / 'epoch_4.pth').is_file()
    assert list(toy_run.glob('*/vis_data/scalars.json'))
    assert (toy_run / 'toy_classifier.py').is_file()  # the config as it was run


def test_test_writes_predictions_and_metrics(toy_run, toy_options, tmp_path):
    tool_here('test.py', TOY, toy_run / 'epoch_4.pth', '--work-dir', tmp_path, *toy_options, check=True)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    assert len(predictions) == 30
    right = sum(int(p['pred_label']) == int(p['gt_label']) for p in predictions)
    assert metrics['accuracy/top1'] == pytest.approx(100 * right / 30, abs=1e-3)
    matrix = json.loads((tmp_path / 'analysis' / 'confusion_matrix.json').read_text())
    assert sum(row[k] for k, row in enumerate(matrix['matrix'])) == right

    # Two processes: the same metric and every prediction once, in the same order.
    out, metrics_file = tmp_path / 'out' / 'p.pkl', tmp_path / 'out' / 'm.json'
    words = (TOY, toy_run / 'epoch_4.pth', 2, '--work-dir', tmp_path, '--out', out, '--json', metrics_file)
    said = tool('dist_test.sh', *words, *toy_options)
    assert said.stdout.count('Load checkpoint from') == 1
    assert 'WARNING' not in said.stdout + said.stderr
    assert json.loads(metrics_file.read_text()) == metrics
    assert json.loads((out.parent / 'analysis' / 'confusion_matrix.json').read_text()) == matrix
    distributed = pickle.loads(out.read_bytes())
    assert [int(p['gt_label']) for p in distributed] == [int(p['gt_label']) for p in predictions]


def test_test_time_augmentation_in_one_process_and_two(toy_run, toy_options, tmp_path):
    words = (TOY, toy_run / 'epoch_4.pth')
    tool_here('test.py', *words, '--work-dir', tmp_path / 'one', '--tta', *toy_options, check=True)
    tool('dist_test.sh', *words, 2, '--work-dir', tmp_path / 'two', '--tta', '--no-analysis', *toy_options)
    assert [(tmp_path / name / 'analysis').exists() for name in ('one', 'two')] == [True, False]
    one, two = (pickle.loads((tmp_path / name / 'predictions.pkl').read_bytes()) for name in ('one', 'two'))
    assert len(one) == len(two) == 30
    for ours, theirs in zip(one, two):
        assert torch.allclose(ours['pred_score'], theirs['pred_score'], atol=1e-5)
        assert int(ours['pred_label']) == int(ours['pred_score'].argmax())
    metrics = json.loads((tmp_path / 'one' / 'metrics.json').read_text())
    right = sum(int(p['pred_label']) == int(p['gt_label']) for p in one)
    assert metrics['accuracy/top1'] == pytest.approx(100 * right / 30, abs=1e-3)


def test_two_processes_train_as_one(toy_options, tmp_path):
    """Four epochs of four steps: the same global batches give the same weights."""
    backbone = Config.fromfile(TOY).model.backbone
    model = fill(ScopeViT(backbone.arch, in_channels=1))  # gammas near 0.5, so that attention matters
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in model.state_dict().items()}), tmp_path / 'start.pth')
    options = ['--pretrained', tmp_path / 'start.pth', *toy_options]
    tool_here('train.py', TOY, '--work-dir', tmp_path / 'one', *options, 'train_dataloader.batch_size=16', check=True)
    result = tool('dist_train.sh', TOY, 2, '--work-dir', tmp_path / 'two', *options, 'train_dataloader.batch_size=8')
    assert '16 = 8 images x 2 processes' in result.stdout
    one, two = weights(tmp_path / 'one' / 'epoch_4.pth'), weights(tmp_path / 'two' / 'epoch_4.pth')
    begun = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    moved = largest_difference({key: one[key] for key in begun}, begun)
    assert moved > 1e-3  # it did train
    assert largest_difference(one, two) < 0.01 * moved  # rounding, which AdamW enlarges where gradients are small


def test_a_start_can_be_read(toy_options, tmp_path):
    """What stands on the screen before the first line about training; the log file has everything."""
    options = ['--work-dir', tmp_path, *toy_options, 'train_cfg.max_epochs=1']
    result = tool('dist_train.sh', TOY, 2, *options)
    shown = (result.stderr + result.stdout).split('Epoch(train)')[0].splitlines()
    assert len(shown) <= 20, shown
    summary = ' '.join(' '.join(shown).split())
    for words in (
        f'task mmpretrain, {TOY}',
        'ImageClassifier with ScopeViT as backbone',
        'training data FashionMNIST, ',
        'device CPU, 2 processes of 1 thread',
        str(tmp_path),
    ):
        assert words in summary, summary
    for noise in ('Warning', 'nccl', 'paramwise_options', 'IterTimerHook', 'init_cfg'):
        assert noise not in '\n'.join(shown)
    (log,) = tmp_path.glob('*/*.log')
    log = log.read_text()
    for kept in ('System environment', 'optim_wrapper = dict(', 'IterTimerHook', "{'backend': 'gloo'}"):
        assert kept in log


def test_progress_is_shown_in_a_terminal_above_which_the_log_goes_on(toy_options, tmp_path):
    import pty

    command = [sys.executable, ROOT / 'tools' / 'train.py', TOY, '--work-dir', tmp_path, *toy_options]
    ours, theirs = pty.openpty()
    environment = {**os.environ, 'COLUMNS': '200', 'TERM': 'xterm'}
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = b''
    try:
        while chunk := os.read(ours, 65536):
            screen += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    screen = screen.decode()
    assert 'training' in screen
    assert 'validating' in screen
    assert re.search(r'\d+/\d+', screen)  # iterations
    assert 'Epoch(train)' in screen
    assert '\x1b[?25h' in screen  # the cursor is back


def test_validation_in_two_processes_is_that_of_the_checkpoint(toy_options, fashion_mnist, tmp_path):
    """With batch norms that learn, each process from its own images."""
    options = [*toy_options, 'model.backbone.norm_eval=False', 'train_dataloader.batch_size=4']
    options += [f'{split}_dataloader.dataset.indices=400' for split in ('val', 'test')]
    tool('dist_train.sh', TOY, 2, '--work-dir', tmp_path, *options)
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    validated = [json.loads(line)['accuracy/top1'] for line in scalars if 'accuracy/top1' in line][-1]
    tool_here('test.py', TOY, tmp_path / 'epoch_4.pth', '--work-dir', tmp_path / 'test', *options, check=True)
    assert json.loads((tmp_path / 'test' / 'metrics.json').read_text())['accuracy/top1'] == pytest.approx(validated)


def is_sent(pid, number):
    """Whether a signal waits for a process that is suspended."""
    status = dict(line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines())
    return bool(int(status['ShdPnd'], 16) >> (number - 1) & 1)


@pytest.mark.parametrize('asleep', [False, True])
def test_killed_rank_ends_the_launcher(toy_options, tmp_path, asleep):
    """Also if the other process learns of it when the launcher has told it to end already."""
    words = ('bash', ROOT / 'tools' / 'dist_train.sh', TOY, 2, '--work-dir', tmp_path)
    log = tmp_path / 'log.txt'
    launcher = start(log, *words, *toy_options, 'train_cfg.max_epochs=100000')
    try:
        wait_for(lambda: (tmp_path / 'epoch_1.pth').exists() or launcher.poll() is not None)
        assert launcher.poll() is None, log.read_text()
        ranks = {}
        for process in psutil.Process(launcher.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # others may end meanwhile
                if 'train.py' in ' '.join(process.cmdline()) and 'RANK' in process.environ():
                    ranks[process.environ()['RANK']] = process
        assert set(ranks) == {'0', '1'}
        if asleep:
            ranks['0'].suspend()
        ranks['1'].kill()
        if asleep:
            wait_for(lambda: is_sent(ranks['0'].pid, signal.SIGTERM))
            ranks['0'].resume()
        assert launcher.wait(timeout=60) == 128 + signal.SIGKILL
        assert log.read_text().count('error: ') == log.read_text().count('process 1 was ended by SIGKILL') == 1
        assert 'Traceback' not in log.read_text()
        assert not ranks['0'].is_running() or ranks['0'].status() == psutil.STATUS_ZOMBIE
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
    read_checkpoint(tmp_path / 'epoch_1.pth')  # what was saved is whole


# Runs a script that is killed as soon as it has saved its second epoch.
KILLED_AT_EPOCH_2 = """
import os, runpy, signal, sys
from scopevit.engine.saving import CheckpointHook

note = CheckpointHook._note_last

def note_and_die(hook, runner):
    note(hook, runner)
    if hook.last_ckpt.endswith('epoch_2.pth'):
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointHook._note_last = note_and_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_interrupted_run_resumes_to_the_same_weights(toy_run, toy_options, tmp_path):
    options = ['--work-dir', tmp_path, *toy_options]
    run = start(
        tmp_path / 'log.txt', sys.executable, '-c', KILLED_AT_EPOCH_2, ROOT / 'tools' / 'train.py', TOY, *options
    )
    assert run.wait(timeout=300) == -signal.SIGKILL, (tmp_path / 'log.txt').read_text()
    result = tool_here('train.py', TOY, '--resume', *options, check=True)
    assert 'goes on from epoch 2' in result.stdout
    assert largest_difference(weights(tmp_path / 'epoch_4.pth'), weights(toy_run / 'epoch_4.pth')) == 0
    # --resume with a path, in two processes
    (tmp_path / 'epoch_4.pth').unlink()
    words = (TOY, 2, '--resume', tmp_path / 'epoch_3.pth', *options, 'train_dataloader.batch_size=8')
    tool('dist_train.sh', *words)
    assert largest_difference(weights(tmp_path / 'epoch_4.pth'), weights(toy_run / 'epoch_4.pth')) < 1e-5


def test_pretrained_amp_seed_and_learning_rate_options(toy_run, toy_options, tmp_path):
    words = ['--work-dir', tmp_path, '--pretrained', toy_run / 'epoch_4.pth', '--amp', '--auto-scale-lr']
    words += ['--seed', 7, '--deterministic', *toy_options, 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=32']
    result = tool('train.py', TOY, *words)
    log = result.stdout + result.stderr
    assert '0 missing, 0 unexpected, 0 of another shape' in log
    assert log.count('mixed precision runs in bfloat16') == 1
    cfg = Config.fromfile(tmp_path / 'toy_classifier.py')
    assert cfg.optim_wrapper.type == 'scopevit.CPUAmpOptimWrapper'
    assert cfg.randomness == dict(seed=7, deterministic=True)
    assert cfg.auto_scale_lr.enable
    step = json.loads(next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()[0])
    assert step['lr'] == pytest.approx(0.02)  # 0.01 for a batch of 16
    assert torch.tensor(step['loss']).isfinite()


def test_load_from_of_another_model_is_refused(toy_options, tmp_path):
    torch.save({'encoder.weight': torch.ones(3)}, tmp_path / 'other.pth')
    words = ('--work-dir', tmp_path / 'run', *toy_options, f'load_from={tmp_path / "other.pth"}')
    result = tool_here('train.py', TOY, *words)
    fails_cleanly(result, 'matches nothing of the backbone')


def test_resume_does_not_pass_over_checkpoints(toy_options, tmp_path):
    (tmp_path / 'epoch_3.pth').write_text('precious')
    result = tool('train.py', TOY, '--work-dir', tmp_path, '--resume', *toy_options, check=False)
    fails_cleanly(result, 'no training can go on from any checkpoint', '--work-dir')
    assert 'epoch_3.pth is truncated or not a PyTorch file' in result.stdout + result.stderr
    assert (tmp_path / 'epoch_3.pth').read_text() == 'precious'


def test_config_of_a_toolbox_trains_unchanged(fashion_mnist, tmp_path):
    """mmpretrain's LeNet for MNIST, whose files have the same names and form."""
    options = [f'{loader}_dataloader.dataset.data_prefix={fashion_mnist}' for loader in ('train', 'val', 'test')]
    options += ['train_dataloader.dataset.indices=256', 'train_cfg.max_epochs=1']
    tool_here(
        'train.py', 'mmpretrain::lenet/lenet5_mnist.py', '--work-dir', tmp_path, '--cfg-options', *options, check=True
    )
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert (tmp_path / 'lenet5_mnist.py').is_file()  # saved under its own name


FAKE_SRUN = """#!/usr/bin/env bash
# Starts as many tasks as --ntasks says, with the variables that Slurm would set.
echo "srun $*" >>"$SRUN_LOG"
while [ "${1#--}" != "$1" ]; do
    case $1 in --ntasks=*) n=${1#*=} ;; esac
    shift
done
for ((i = 0; i < n; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=$n SLURM_NNODES=1 "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""


def test_slurm_scripts(toy_run, toy_options, tmp_path):
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text(FAKE_SRUN)
    srun.chmod(0o755)
    env = dict(PATH=f'{srun.parent}:{os.environ["PATH"]}', SRUN_LOG=str(tmp_path / 'log'), GPUS='2', GRES='none')
    options = ['--work-dir', tmp_path / 'run', *toy_options, 'train_dataloader.batch_size=8']
    tool('slurm_train.sh', 'some_partition', 'some_job', TOY, *options, env=env)
    assert largest_difference(
        weights(tmp_path / 'run' / 'epoch_4.pth'), weights(toy_run / 'epoch_4.pth')
    ) < 1e-4  # fmt: skip
    options = ['--work-dir', tmp_path / 'test', *toy_options]
    env['GRES'] = 'gpu:a100:2'
    tool('slurm_test.sh', 'some_partition', 'some_job', TOY, tmp_path / 'run' / 'epoch_4.pth', *options, env=env)
    assert (tmp_path / 'test' / 'metrics.json').is_file()
    train, test = (tmp_path / 'log').read_text().splitlines()
    assert '--partition=some_partition --job-name=some_job --ntasks=2 --ntasks-per-node=2' in train
    assert '--gres' not in train
    assert '--gres=gpu:a100:2' in test


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_scripts_say_how_they_are_used(script):
    result = tool(script, check=False)
    assert result.returncode == 2
    assert f'bash tools/{script}' in result.stderr
    if script == 'dist_train.sh':
        result = tool(script, 'config.py', 'two', check=False)
        assert result.returncode == 2
        assert "NPROC must be a whole number of at least 1, but is 'two'" in result.stderr


# Bad input. Each ends with one message, and leaves what was there.


def test_train_names_what_is_wrong(toy_run, toy_options, tmp_path):
    fails_cleanly(tool_here('train.py', 'configs/no.py'), 'config configs/no.py does not exist')
    result = tool_here('train.py', TOY, '--work-dir', TOY / 'below_a_file', *toy_options)
    fails_cleanly(result, 'cannot write to', '--work-dir')
    work_dir = ['--work-dir', tmp_path]
    result = tool_here('train.py', TOY, *work_dir, '--pretrained', 'no.pth', *toy_options)
    fails_cleanly(result, 'checkpoint no.pth does not exist')
    torch.save(ScopeViT('xtiny').state_dict(), tmp_path / 'other.pth')
    result = tool_here('train.py', TOY, *work_dir, '--pretrained', tmp_path / 'other.pth', *toy_options)
    fails_cleanly(result, 'does not fit the backbone ScopeViT', 'of another shape')


def test_truncated_checkpoint_in_the_work_dir_is_named_and_kept(toy_run, toy_options, tmp_path):
    whole = (toy_run / 'epoch_4.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    result = tool('train.py', TOY, '--work-dir', tmp_path, '--resume', *toy_options, check=False)
    fails_cleanly(result, 'no training can go on from any checkpoint')
    assert 'epoch_3.pth is truncated' in result.stdout + result.stderr
    assert (tmp_path / 'epoch_3.pth').stat().st_size == len(whole) // 2


def test_test_refuses_a_checkpoint_of_another_model(toy_run, toy_options, tmp_path):
    options = ['--work-dir', tmp_path, *toy_options, 'model.head.num_classes=7']
    result = tool_here('test.py', TOY, toy_run / 'epoch_4.pth', *options)
    fails_cleanly(result, 'of another model than the config describes', 'head.fc.weight (10, 64) for (7, 64)')
    words = (TOY, toy_run / 'epoch_4.pth', '--work-dir', tmp_path, '--out', 'p.json', *toy_options)
    fails_cleanly(tool_here('test.py', *words), 'its name must end with .pkl')


@pytest.mark.parametrize(('content', 'workers'), [(b'not an image', 1), (b'', 0)], ids=['text', 'empty'])
def test_broken_training_image_is_named_and_checkpoints_stay(content, workers, tmp_path):
    images = image_folders(tmp_path / 'images')
    load = dict(type='LoadImageFromFile')
    pipeline = [load, dict(type='Resize', scale=32), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_root=str(images), pipeline=pipeline)
    loader = dict(_delete_=True, batch_size=4, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=True))
    settings = dict(
        train_dataloader=dict(**loader, dataset=dict(**dataset, data_prefix='train')),
        val_dataloader=dict(**loader, dataset=dict(**dataset, data_prefix='val')),
        model=dict(
            data_preprocessor=dict(mean=[127] * 3, std=[64] * 3), backbone=dict(in_channels=3), head=dict(num_classes=3)
        ),
        train_cfg=dict(max_epochs=1),
    )
    config = tmp_path / 'config.py'
    text = '\n'.join(f'{key} = {value!r}' for key, value in settings.items())
    config.write_text(f'_base_ = {str(TOY)!r}\n{text}\n')
    work_dir = ['--work-dir', tmp_path / 'run']
    tool_here('train.py', config, *work_dir, check=True)
    broken = images / 'train' / 'class_1' / '2.jpg'
    broken.write_bytes(content)
    result = tool_here('train.py', config, *work_dir, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    fails_cleanly(result, f'image {broken} cannot be decoded', '--resume')
    read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')
