"""Loading configs of any toolbox, and making them fit the machine."""

import argparse
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner

from scopevit.engine import launch
from scopevit.engine.console import is_first_process
from scopevit.registry import OPTIM_WRAPPERS
from scopevit.utils.errors import UserError


def test_sync_bn_becomes_bn_everywhere(capsys):
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
                head=[dict(norm_cfg=dict(type='SyncBN')), dict(norm_cfg=dict(type='LN'))],
            ),
            sync_bn='torch',
            train_dataloader=dict(pin_memory=True),
        )
    )
    launch._adapt_to_cpu(cfg)
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.model.head] == ['BN', 'LN']
    assert 'sync_bn' not in cfg
    assert not cfg.train_dataloader.pin_memory


def test_mixed_precision_on_cpus_is_bfloat16():
    cfg = Config(dict(model=dict(), optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')))
    launch._adapt_to_cpu(cfg)
    assert cfg.optim_wrapper == dict(type='scopevit.CPUAmpOptimWrapper')
    # mmpose computes in NumPy, too, which has no bfloat16
    pose = dict(default_scope='mmpose', optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16'))
    launch._adapt_to_cpu(cfg_of_poses := Config(pose))
    assert cfg_of_poses.optim_wrapper == dict(type='OptimWrapper')
    model = torch.nn.Linear(4, 4)
    wrapper = OPTIM_WRAPPERS.build(
        ConfigDict(type='scopevit.CPUAmpOptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    )
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        y = model(torch.randn(2, 4))
        assert y.dtype == torch.bfloat16
    assert model(torch.randn(2, 4)).dtype == torch.float32
    wrapper.update_params(y.float().square().mean())
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_launcher_without_its_variables_is_named(launcher, monkeypatch):
    for names in [('RANK',), *launch._LAUNCHER_VARIABLES.values()]:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='is not set; start it with'):
        launch._set_ranks(launcher)


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_processes_are_numbered_as_their_launcher_says(launcher, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '0')  # so that it is as before afterwards
        monkeypatch.delenv(name)
    assert is_first_process()
    for name, value in zip(launch._LAUNCHER_VARIABLES[launcher], '325'):
        monkeypatch.setenv(name, value)
    assert is_first_process()  # of a training of its own, which the launcher did not start to train with others
    launch._set_ranks(launcher)
    assert [os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')] == list('325')
    assert os.environ['MASTER_ADDR'] == '127.0.0.1'
    assert not is_first_process()


def test_several_machines_of_mpi_need_the_first_ones_address(monkeypatch):
    for name, value in zip(launch._LAUNCHER_VARIABLES['mpi'], '004'):
        monkeypatch.setenv(name, value)
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_SIZE', '2')
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    with pytest.raises(UserError, match='needs MASTER_ADDR'):
        launch._set_ranks('mpi')


def test_more_processes_than_gpus_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(launch, 'end_with_launcher', lambda: None)
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    args = argparse.Namespace(work_dir=str(tmp_path), launcher='pytorch', local_rank=0)
    with pytest.raises(UserError, match='2 processes, but this machine shows 1 GPU: start 1'):
        launch.prepare(Config(), args)


@pytest.fixture
def prepare_for_slurm(monkeypatch, tmp_path):
    """Prepares a process that Slurm started and that sees so many GPUs, and gives its numbers."""

    def prepare(gpus, local_rank):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        monkeypatch.setattr(launch, 'settle_gpu', lambda *_: None)
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
            monkeypatch.setenv(name, '0')  # so that it is as before afterwards
        for name, value in zip(launch._LAUNCHER_VARIABLES['slurm'], ('5', str(local_rank), '8')):
            monkeypatch.setenv(name, value)
        launch.prepare(Config(), argparse.Namespace(work_dir=str(tmp_path), launcher='slurm', local_rank=0))
        return [os.environ[name] for name in ('SLURM_PROCID', 'RANK', 'SLURM_LOCALID', 'LOCAL_RANK')]

    return prepare


def test_the_only_gpu_that_slurm_shows_a_process_is_its_own(prepare_for_slurm):
    """As srun --gpus-per-task=1 does: each task's GPU has number 0."""
    assert prepare_for_slurm(gpus=1, local_rank=1) == ['5', '5', '0', '0']
    assert prepare_for_slurm(gpus=4, local_rank=1) == ['5', '5', '1', '1']


def test_more_processes_of_slurm_than_gpus_are_named(prepare_for_slurm):
    with pytest.raises(UserError, match='at least 4 processes, but this machine shows 2 GPUs: start 2'):
        prepare_for_slurm(gpus=2, local_rank=3)


class Sum(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, mode):
        return dict(loss=(self.weight * x).sum()) if mode == 'loss' else [x]


@pytest.mark.parametrize('loop', [dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=3)])
@pytest.mark.parametrize('persistent', [True, False])
def test_loader_processes_end_with_the_run(loop, persistent, tmp_path):
    before = multiprocessing.active_children()
    runner = Runner(
        Sum(),
        str(tmp_path),
        train_dataloader=dict(
            dataset=dict(type=lambda: [dict(x=torch.ones(1))] * 4),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            num_workers=1,
            persistent_workers=persistent,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None),
        experiment_name=tmp_path.name,
    )
    runner.train()
    launch.end_loaders(runner)
    assert set(multiprocessing.active_children()) <= set(before)


def test_freed_memory_is_used_again():
    program = """
import resource, torch
from scopevit.engine.launch import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(2**22) for _ in range(4)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(2**22)
first = new_pages()
keep_freed_memory()
new_pages()
print(first, new_pages())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    output = subprocess.check_output([sys.executable, '-c', program], env=environment, text=True)
    before, after = map(int, output.split())
    assert after < before / 10
