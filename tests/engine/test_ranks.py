"""What two processes share and what each has for itself: seeds, order of the data, statistics of averaged weights."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from helpers import ROOT, TOY, fails_cleanly, tool, tool_here

# Writes of each of the first batches which images it has, and by how much they are mixed with others; then which box
# CutMix would cut, and which of 64 images would leave a branch out.
SCRIPT = """
import json, sys
from itertools import islice
from mmengine.config import Config
from mmengine.dist import get_rank
from mmpretrain.models.utils.batch_augments import CutMix
from scopevit.engine.launch import build_runner
from scopevit.models.layers import DropPath
from scopevit.utils.config import load_config
import torch
torch.distributed.init_process_group('gloo')
cfg = load_config(sys.argv[1])
cfg.merge_from_dict(dict(
    work_dir=sys.argv[3], launcher='pytorch', log_level='ERROR',
    randomness=dict(seed=3, diff_rank_seed=sys.argv[4] == '1'),
    **{f'{loader}_dataloader.dataset.data_root': sys.argv[2] for loader in ('train', 'val', 'test')},
))
cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8)])
cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
runner = build_runner(cfg)
images, mixed = [], []
for data in islice(runner.build_dataloader(cfg.train_dataloader, runner.seed, sys.argv[4] == '1'), 3):
    images.append([sample.sample_idx for sample in data['data_samples']])
    data = runner.model.module.data_preprocessor(data, training=True)
    mixed.append(round(min(sample.gt_score.max().item() for sample in data['data_samples']), 6))
box, _ = CutMix(1.0).cutmix_bbox_and_lam((224, 224), 0.5)
dropped = DropPath(0.5).train()(torch.ones(64, 1, 1)).flatten().tolist()
with open(f'{sys.argv[3]}/{get_rank()}.json', 'w') as file:
    json.dump(dict(images=images, mixed=mixed, box=[int(edge) for edge in box], dropped=dropped), file)
torch.distributed.destroy_process_group()
"""


def draws(folder, data, own_seeds):
    """Of two processes, the images of their batches and how these are mixed."""
    folder.mkdir()
    (folder / 'script.py').write_text(SCRIPT)
    words = [TOY, data, folder, int(own_seeds)]
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(
        [*launch, str(folder / 'script.py'), *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_processes_mix_images_in_their_own_way_and_share_one_order_of_the_data(fashion_mnist, tmp_path):
    shared, own = (draws(tmp_path / str(int(seeds)), fashion_mnist, seeds) for seeds in (False, True))
    for draw in ('mixed', 'box', 'dropped'):
        assert shared[0][draw] == shared[1][draw]
        assert own[0][draw] != own[1][draw]
    assert not set(own[0]['mixed']) & set(own[1]['mixed'])
    assert [process['images'] for process in own] == [process['images'] for process in shared]
    first, second = ({image for batch in process['images'] for image in batch} for process in own)
    assert not first & second


HOOK = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KeepStatistics(Hook):
    def after_train(self, runner):
        (ema,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
        torch.save(dict(ema.ema_model.module.named_buffers()), f'{runner.work_dir}/statistics_{get_rank()}.pth')
"""
CONFIG = """
_base_ = {toy!r}

custom_imports = dict(imports=['keep_statistics'])

model = dict(backbone=dict(norm_eval=False))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.05))
custom_hooks = [
    dict(type='scopevit.SyncBuffersHook'),
    dict(type='EMAHook', momentum=0.2, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(type='KeepStatistics'),
]
"""
EPOCHS = 'train_cfg = dict(max_epochs=2, val_interval=1)\n'
ITERATIONS = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=6, val_interval=6)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3))
log_processor = dict(by_epoch=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('length', 'last'), [(EPOCHS, 'epoch_2.pth'), (ITERATIONS, 'iter_6.pth')])
def test_published_average_is_the_one_that_was_validated(toy_options, tmp_path, length, last):
    """Batch norms learn the statistics of each process's images; those of the average are averaged over processes."""
    config = tmp_path / 'averaged.py'
    config.write_text(CONFIG.format(toy=str(TOY)) + length)
    (tmp_path / 'keep_statistics.py').write_text(HOOK)
    path = dict(PYTHONPATH=str(tmp_path))
    result = tool('dist_train.sh', config, 2, '--work-dir', tmp_path, *toy_options, env=path)
    validated = re.findall(r'accuracy/top1: ([\d.]+)', result.stdout + result.stderr)[-1]
    saved = torch.load(tmp_path / last, map_location='cpu', weights_only=False)
    first, second = (torch.load(tmp_path / f'statistics_{rank}.pth') for rank in (0, 1))
    means = [name for name in first if name.endswith('running_mean')]
    assert len(means) > 10
    for name in means:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        assert torch.equal(first[name], saved['state_dict'][name])
        assert not torch.equal(first[name], saved['ema_state_dict'][f'module.{name}'])
    printed = tool_here('converters/publish_model.py', tmp_path / last, tmp_path / 'published.pth', check=True).stdout
    tested = tool_here('test.py', TOY, printed.split()[-1], '--work-dir', tmp_path / 'test', *toy_options, check=True)
    assert re.findall(r'accuracy/top1: ([\d.]+)', tested.stdout + tested.stderr)[-1] == validated


FAULT = """
import os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Fault(Hook):
    def after_train_iter(self, runner, *args, **options):
        if os.environ['RANK'] == '1':
            raise ValueError('of the second alone')
"""


@pytest.mark.slow
def test_an_error_is_said_once_whichever_processes_have_it(toy_options, tmp_path):
    fails_cleanly(tool('dist_train.sh', 'nothing.py', 2, check=False), 'config nothing.py does not exist')
    result = tool('dist_train.sh', TOY, 2, '--nope', check=False)
    assert result.stderr.count('usage: ') == result.stderr.count('unrecognized arguments: --nope') == 1
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'epoch_1.pth').touch()  # which the first process alone looks for
    result = tool('dist_train.sh', TOY, 2, '--work-dir', work_dir, *toy_options, check=False)
    fails_cleanly(result, 'checkpoints of another run')
    (tmp_path / 'fault.py').write_text(FAULT)
    config = tmp_path / 'faulty.py'
    config.write_text(
        f"_base_ = {str(TOY)!r}\ncustom_imports = dict(imports=['fault'])\ncustom_hooks = [dict(type='Fault')]\n"
    )
    options = ['--work-dir', tmp_path / 'other', *toy_options]
    result = tool('dist_train.sh', config, 2, *options, env=dict(PYTHONPATH=str(tmp_path)), check=False)
    assert result.returncode == 1
    assert result.stderr.count('Traceback') == result.stderr.count('ValueError: of the second alone') == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1'])
def test_the_launcher_waits_for_its_processes_at_every_signal(name, tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, signal, sys, time\n'
        f'signal.signal(signal.{name}, lambda *_: print("saved") or sys.exit())\n'
        f'os.kill(os.getppid(), signal.{name})\n'
        'time.sleep(60)\n'
    )
    result = tool('launch.py', 1, script, check=False)
    assert result.returncode == 128 + getattr(signal, name), result.stderr
    assert result.stdout.count('saved') == 1
