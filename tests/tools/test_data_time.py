"""Does a training wait for its data? On small ones, with and without loader processes."""

import json
import time
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from helpers import ROOT, TOY, fails_cleanly, tool_here
from scopevit.analysis.data_time import cores_for, measure

SEGMENTATION = ROOT / 'configs' / 'segmentation' / 'scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512.py'


def data_time(*words, cwd=None):
    return tool_here('analysis/data_time.py', *words, '--iters', 3, '--warmup', 1, cwd=cwd)


@pytest.mark.slow
def test_table(toy_options, tmp_path):
    out, page = tmp_path / 'times.json', tmp_path / 'times.md'
    # Four batches are an epoch: the loader starts again in between.
    result = data_time(TOY, '--workers', 0, 1, '--json', out, '--table', page, '--speed', 10**6, *toy_options)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())['results']
    assert [row['workers'] for row in rows] == [0, 1]
    for row in rows:
        assert row['batch'] == 16
        assert len(row['waiting']) == len(row['model']) == 3
        assert min(row['waiting'] + row['model']) > 0
        assert row['loader_alone'] > 0
    lines = [line for line in result.stdout.splitlines() if line.startswith('| toy_classifier')]
    assert len(lines) == 2
    assert 'persistent_workers=False' in result.stdout
    assert result.stdout.count('toy_classifier: 8 GPUs at 1,000,000 images/s need') == 2
    assert 'decoder=cv2' in result.stdout
    assert 'The data preprocessor counts to the model' in result.stdout
    assert 'before and' in result.stdout  # the load average
    assert page.read_text() == result.stdout.removesuffix('\n')
    assert sorted(tmp_path.iterdir()) == [out, page]


@pytest.mark.slow
def test_loggers_of_the_config_are_left_alone(toy_options):
    backends = "visualizer.vis_backends=[{'type':'WandbVisBackend'}]"  # which is not installed
    assert data_time(TOY, *toy_options, backends).returncode == 0


@pytest.mark.slow
def test_a_loop_of_iterations_with_an_infinite_sampler(toy_options, tmp_path):
    config = tmp_path / 'iterations.py'
    config.write_text(f"""
_base_ = {str(TOY)!r}
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=20)
train_dataloader = dict(num_workers=2, persistent_workers=True, sampler=dict(type='InfiniteSampler'))
""")
    out = tmp_path / 'times.json'
    result = data_time(config, '--json', out, *toy_options)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(out.read_text())['results']
    assert len(row['model']) == 3
    assert row['workers'] == 2


class Bursts:
    """Batches that five workers have ready at the same time, every 20 ms."""

    batch_size, num_workers, prefetch_factor = 8, 5, 2
    persistent_workers = pin_memory = False

    def __iter__(self):
        for i in range(1000):
            if i % 5 == 0:
                time.sleep(0.02)
            yield i


def test_a_burst_of_batches_does_not_pass_for_the_rate_of_the_loader():
    model = SimpleNamespace(train_step=lambda batch, optim_wrapper: None)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[]))))
    loop = SimpleNamespace()
    runner = SimpleNamespace(train_dataloader=Bursts(), train_loop=loop, model=model, optim_wrapper=None, cfg=cfg)
    row = measure(runner, iters=4, warmup=1)
    assert row['loader_alone'] >= 0.004  # of a batch; the four after the first ten are there at once


def test_cores_that_gpus_need():
    row = dict(config='a', batch=128, loader_alone=0.256, workers=5)  # 500 images/s
    says = cores_for(row, speed=2600, gpus=8, cores=2)
    assert says.startswith(
        'a: 8 GPUs at 2,600 images/s need 88 cores for their workers, 11 each, at 250 images/s and c'
    )
    assert '(5 workers on 2 cores here)' in says
    assert '26 each, at 100 images/s' in cores_for(row, speed=2600, gpus=8, cores=64)
    assert '6 each, at 500 images/s' in cores_for(dict(row, workers=0), speed=2600, gpus=1, cores=64)


def test_bad_input(tmp_path):
    fails_cleanly(data_time('configs/missing.py'), 'does not exist')
    fails_cleanly(data_time(TOY, '--workers', -1), '--workers must be at least 0')
    assert 'argument --speed: must be at least 1' in data_time(TOY, '--speed', 0).stderr
    fails_cleanly(data_time(TOY, '--json', tmp_path), '--json', 'is a folder')
    fails_cleanly(data_time(TOY, '--table', tmp_path), '--table', 'is a folder')
    fails_cleanly(data_time('mmpretrain::_base_/default_runtime.py'), 'has no train_dataloader')
    fails_cleanly(data_time(SEGMENTATION, cwd=tmp_path), 'cannot be loaded', 'check_dataset.py')
    assert not list(tmp_path.iterdir())
