"""The comparison on small images: one recipe for all, models of the right kind, trainings that go on."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope

from helpers import fails_cleanly, tool, tool_here
from projects.imagenet_table import train_all
from projects.imagenet_table.page import evit_tokens, limits, p2t_grids
from projects.imagenet_table.rows import ROOT, ROWS
from projects.imagenet_table.small import small_config, swin_windows
from projects.imagenet_table.train_all import (
    claim,
    folder_of,
    locked,
    parse_args,
    read_log,
    report,
    rewind,
    write_config,
)
from scopevit.analysis import count
from scopevit.apis.model import Network, build_model
from scopevit.utils.errors import UserError

TRAIN_ALL = ROOT / 'projects' / 'imagenet_table' / 'train_all.py'
BY_NAME = {row.name: row for row in ROWS}
BUILDABLE = [row for row in ROWS if row.missing_library is None]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Fashion-MNIST's files with 24 images of noise for training and 8 for testing."""
    folder = tmp_path_factory.mktemp('data')
    pixels = np.random.default_rng(0).integers(0, 256, (32, 28, 28), dtype=np.uint8)
    for split, part in (('train', pixels[:24]), ('t10k', pixels[24:])):
        header = struct.pack('>4I', 0x803, len(part), 28, 28)
        (folder / f'{split}-images-idx3-ubyte').write_bytes(header + part.tobytes())
        labels = bytes(i % 10 for i in range(len(part)))
        (folder / f'{split}-labels-idx1-ubyte').write_bytes(struct.pack('>2I', 0x801, len(part)) + labels)
    return folder


@pytest.fixture
def parse(data, tmp_path):
    """The options for that data, 12 images of it, and a folder."""

    def with_words(*words):
        return parse_args(
            ['--data', str(data), '--count', '12', '--work-dir', str(tmp_path / 'runs'), *map(str, words)]
        )

    return with_words


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


@pytest.mark.parametrize('row', BUILDABLE, ids=lambda row: row.name)
def test_small_models_take_grey_images_of_ten_classes(row, parse):
    cfg = small_config(row, parse('--size', 64))
    own = row.load().model
    if 'backbone' in own:
        changed = {key for key, value in cfg.model.backbone.items() if value != own.backbone.get(key)}
        assert changed <= {'in_channels', 'img_size', 'stage_cfgs'}
        assert {key for key, value in cfg.model.head.items() if value != own.head.get(key)} == {'num_classes', 'topk'}
    model = build(cfg).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 1, 64, 64), mode='tensor').shape == (2, 10)


def test_windows_of_swin_divide_its_maps(parse):
    assert swin_windows(224) == [7, 7, 7, 7]
    assert swin_windows(96) == [6, 6, 6, 3]
    assert swin_windows(64) == [4, 4, 4, 2]
    assert swin_windows(32) == [4, 4, 2, 1]
    row = BY_NAME['Swin-2G']
    for size in (32, 64):
        network = Network(build_model(small_config(row, parse('--size', size))))
        in_proportion = row.counted_macs * (size / 224) ** 2
        assert count(network, torch.zeros(1, 1, size, size)).macs == pytest.approx(in_proportion, rel=0.05)


def test_all_rows_have_the_same_recipe(parse):
    args = parse('--size', 64, '--epochs', 36, '--batch-size', 4)
    names = ('PVT-Small', 'EViT-S', 'CoaT Mini', 'ScopeViT-T')  # of every kind
    first, *others = (small_config(BY_NAME[name], args) for name in names)
    for cfg in others:
        for key in ('train_dataloader', 'val_dataloader', 'param_scheduler', 'train_cfg', 'data_preprocessor'):
            assert cfg[key] == first[key]
        assert cfg.optim_wrapper.optimizer == first.optim_wrapper.optimizer
    assert (first.train_dataloader.batch_size, first.train_cfg.max_epochs) == (4, 36)
    assert [(step.get('begin', 0), step.end) for step in first.param_scheduler] == [(0, 4), (4, 36)]
    for batch, end in ((4, 1 / 3), (8, 1)):  # of 12 images
        warm_up, cosine = small_config(BY_NAME['DeiT-S'], parse('--epochs', 3, '--batch-size', batch)).param_scheduler
        assert warm_up.end == cosine.begin == pytest.approx(end)
    for loader in (first.train_dataloader, first.val_dataloader):
        assert loader.dataset.pipeline[0].scale == 64
    assert first.train_dataloader.dataset.pipeline[1].crop_size == 64


def test_no_weight_of_any_row_learns_faster_than_others(parse):
    for row in BUILDABLE:
        cfg = small_config(row, parse('--size', 64))
        wrapper = build_optim_wrapper(build(cfg), cfg.optim_wrapper)
        assert {group['lr'] for group in wrapper.param_groups} == {wrapper.optimizer.defaults['lr']}, row.name


def test_training_held_out_and_test_images_are_others(parse):
    cfg = small_config(BY_NAME['P2T-T'], parse())
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
        datasets = [DATASETS.build(loader.dataset) for loader in loaders]
    images = [{dataset.get_data_info(i)['img'].tobytes() for i in range(len(dataset))} for dataset in datasets]
    assert [len(part) for part in images] == [12, 4, 8]
    assert len(set.union(*images)) == 24


def test_folders_are_not_mixed(parse):
    claim(parse())
    claim(parse('--seeds', 5, '--rows', 'P2T-T', '--workers', 2))
    claim(parse('--count', 8, '--work-dir', parse().work_dir + '2'), write=False)
    assert not Path(parse().work_dir + '2').exists()
    for words in (['--amp'], ['--lr', 0.1], ['--count', 8], ['--epochs', 4]):
        with pytest.raises(UserError, match=f'other settings.*{words[0][2:]}'):
            claim(parse(*words))


def test_refuses_what_cannot_be_trained(tmp_path, data):
    fails_cleanly(tool_here(TRAIN_ALL, '--data', tmp_path), 'fashion_mnist.py unpack')
    fails_cleanly(tool_here(TRAIN_ALL, '--data', data, '--count', 12, '--size', 48), 'multiple of 32')
    fails_cleanly(tool_here(TRAIN_ALL, '--data', data, '--count', 21), 'from 1 to 20')
    fails_cleanly(tool_here(TRAIN_ALL, '--epochs', 1), '--epochs must be at least 2')
    words = (
        '--data',
        data,
        '--count',
        12,
        '--rows',
        'P2T-T',
        '--work-dir',
        tmp_path / 'runs',
        '--table',
        tmp_path / 'page.md',
    )
    fails_cleanly(tool_here(TRAIN_ALL, *words), 'page of all rows')
    assert not (tmp_path / 'runs').exists()


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    with locked(str(tmp_path)):
        with pytest.raises(UserError, match='still runs'), locked(str(tmp_path)):
            pass
        # Who trains there holds the lock, even if it outlives the process that started it.
        left = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, close_fds=False)
    with pytest.raises(UserError, match='still runs'), locked(str(tmp_path)):
        pass
    left.communicate(b'\n')
    with locked(str(tmp_path)):
        pass


def test_a_second_process_does_not_even_time_the_rows(parse, monkeypatch):
    monkeypatch.setattr(train_all, 'estimate', lambda *_: pytest.fail('timed'))
    args = parse('--rows', 'P2T-T')
    with locked(args.work_dir), pytest.raises(UserError, match='still runs'):
        train_all.train_all(args)


def test_estimate_goes_on_after_a_row_that_fails(parse, monkeypatch, capsys):
    failing = SimpleNamespace(label='P2T-T', error='RuntimeError: out of luck')
    timed = SimpleNamespace(label='ScopeViT-T', error=None, images_per_second=10.0)
    monkeypatch.setattr(train_all, 'compare', lambda entries, settings: SimpleNamespace(results=[failing, timed]))
    monkeypatch.setattr(train_all, 'train', lambda *args: pytest.fail('trained'))
    args = parse('--rows', 'P2T-T', 'ScopeViT-T', '--estimate')
    train_all.train_all(args)
    printed = capsys.readouterr().out
    assert 'P2T-T: RuntimeError: out of luck' in printed
    assert 'ScopeViT-T: 10 images/s' in printed
    claim(parse('--count', 8))  # nothing was settled


# What trainings wrote


def write_scalars(work_dir, start, *entries, end='\n'):
    file = work_dir / start / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, entries)) + end)


def training(iteration, loss):
    return dict(loss=loss, epoch=1, iter=iteration, time=0.5, data_time=0.1)


def validation(epoch, accuracy):
    return {'accuracy/top1': accuracy, 'step': epoch}


def test_log_of_a_broken_training(tmp_path):
    write_scalars(tmp_path, '1', training(1, 2.0), validation(1, 30.0), training(2, math.nan), end='\n{"accuracy/to')
    write_scalars(tmp_path, '2', training(3, 1.0), validation(3, 50.0))
    log = read_log(tmp_path)
    assert log.held_out == {1: 30.0, 3: 50.0}
    assert log.losses == {1: 2.0, 2: None, 3: 1.0}
    assert (log.times, log.data_times) == ([0.5] * 3, [0.1] * 3)


def test_goes_back_to_the_last_validated_epoch(tmp_path):
    write_scalars(tmp_path, '1', validation(1, 30.0))
    for epoch in (1, 2):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    rewind(tmp_path)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    (tmp_path / 'epoch_1.pth').unlink()
    rewind(tmp_path)
    assert not tmp_path.exists()


# The whole, with trainings that are not run


def result_of(row, lr, seed, accuracy=70.0):
    machine = dict(device='CPU', cpu='X', threads=2, cores=2, torch='2', date='2026-11-23', load=0.0, capability='none')
    speed = dict(images_per_second=10.0, seconds_per_epoch=1.2, part_waiting_for_data=0.1)
    numbers = dict(accuracy=accuracy, held_out=[50.0, accuracy], losses=[[10, 2.0], [20, None], [30, 1.0]])
    return dict(row=row.name, lr=lr, seed=seed, **numbers, **speed, machine=machine)


def test_rate_of_a_row_is_the_one_best_on_held_out_images(parse, monkeypatch):
    asked, reported = [], []

    def train(row, lr, seed, args):
        asked.append((row.name, lr, seed))
        return result_of(row, lr, seed, accuracy=100 * lr if row.name == 'P2T-T' else -lr)

    monkeypatch.setattr(train_all, 'train', train)
    monkeypatch.setattr(train_all, 'estimate', lambda rows, args: None)
    monkeypatch.setattr(train_all, 'report', lambda rows, results, *_: reported.append([r['lr'] for r in results]))
    train_all.train_all(parse('--rows', 'P2T-T', 'DeiT-S', '--lr', 0.1, 0.2, '--seeds', 2))
    assert len(asked) == 6
    assert asked[4:] == [('DeiT-S', 0.1, 1), ('P2T-T', 0.2, 1)]
    assert reported == [[0.1, 0.2], [0.1, 0.2, 0.1, 0.2]]


def test_failures_are_told_and_nothing_is_reported_of_nothing(parse, monkeypatch):
    def train(row, lr, seed, args):
        raise UserError('out of memory')

    monkeypatch.setattr(train_all, 'train', train)
    monkeypatch.setattr(train_all, 'estimate', lambda rows, args: None)
    with pytest.raises(UserError, match='DeiT-S, seed 0: out of memory; P2T-T, seed 0: out of memory'):
        train_all.train_all(parse('--rows', 'P2T-T', 'DeiT-S'))


def test_page_says_what_is_missing(parse, tmp_path, monkeypatch):
    rows = [BY_NAME[name] for name in ('P2T-T', 'ScopeViT-T')]
    args = parse('--seeds', 2, '--table', tmp_path / 'page.v1.md')
    (tmp_path / 'runs').mkdir()
    monkeypatch.setattr('sys.argv', ['train_all.py', '--table', 'a b.md'])
    results = [result_of(rows[0], 5e-4, 0, 71.0), result_of(rows[0], 5e-4, 1, 73.0), result_of(rows[1], 2e-3, 0, 75.0)]
    report(rows, results, [*results, result_of(rows[0], 2e-3, 0, 60.0)], args)
    page = (tmp_path / 'page.v1.md').read_text()
    assert 'Missing: ScopeViT-T seed 1.' in page
    assert '72.00 ± 1.41' in page
    assert page.index('| ScopeViT-T') < page.index('| P2T-T')
    assert "train_all.py --table 'a b.md'" in page
    assert '12 grey images' in page
    facts = json.loads((tmp_path / 'page.v1.json').read_text())
    assert facts['trainings'] == results
    assert [(result['row'], result['lr']) for result in facts['other_rates']] == [('P2T-T', 2e-3)]
    assert (tmp_path / 'page.v1.png').stat().st_size > 10_000


def test_page_says_where_a_size_is_too_small():
    assert evit_tokens(64, 0.6) == [17, 12, 9, 7]
    assert evit_tokens(256, 0.6) == [257, 156, 95, 59]
    assert 'never fewer' not in limits(64)
    assert 'never fewer' in limits(32)
    assert '1x1 cells: attention in them is trivial' in limits(32)
    assert '2x2 cells, where attention has little to do' in limits(64)
    assert 'little to do' not in limits(128)
    assert p2t_grids(256) == [(5, 4, 3, 3), (5, 4, 3, 3), (5, 4, 3, 3), (8, 4, 3, 2)]
    assert 'in stages 1, 2, 3 all are the mean of the map' in limits(64)
    assert 'mean of the map' not in limits(128)
    assert '1 of them in its last map, where attention has nothing to choose from' in limits(64)
    assert '4 of them in its last map.' in limits(128)
    assert '4 of them in its last map, which is interpolated for them.' in limits(96)


def test_page_tells_days_and_commits_of_all_trainings(parse, tmp_path):
    row = BY_NAME['P2T-T']
    results = [result_of(row, 5e-4, seed) for seed in (0, 1)]
    results[0]['machine'].update(commit='aaa')
    results[1]['machine'].update(commit='bbb', date='2026-11-25')
    (tmp_path / 'runs').mkdir()
    report([row], results, results, parse('--table', tmp_path / 'page.md'))
    page = (tmp_path / 'page.md').read_text()
    assert '2026-11-23 to 2026-11-25, CPU: 2 threads on 2 cores of X (none); torch 2, commit aaa, bbb.' in page
    assert 'an accuracy of 70 % a standard error of 16.2 points' in page  # of 8 images


@pytest.mark.slow
def test_a_training_goes_on_after_an_interruption(data, tmp_path):
    words = ['--data', data, '--work-dir', tmp_path / 'runs', '--rows', 'P2T-T']
    words += ['--size', 32, '--count', 12, '--batch-size', 4, '--epochs', 2, '--seeds', 1, '--lr', 0.001]
    row, args = BY_NAME['P2T-T'], parse_args(list(map(str, words)))
    claim(args)
    config, work_dir = write_config(row, args), folder_of(row, 0.001, 0, args)
    assert Config.fromfile(config).train_cfg.max_epochs == 2
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    tool('train.py', config, '--work-dir', work_dir, '--seed', 0, *options, env=dict(PYTHONPATH=str(ROOT)))
    assert list(read_log(work_dir).held_out) == [1]

    result = tool_here(TRAIN_ALL, *words)
    assert result.returncode == 0, result.stderr
    assert '1 trainings, about' in result.stdout
    log = work_dir.with_name(f'{work_dir.name}.log').read_text()
    assert 'goes on from epoch 1' in log
    measured = json.loads((work_dir / 'result.json').read_text())
    assert len(measured['held_out']) == 2
    assert [step for step, _ in measured['losses'] if step % 3 == 0] == [3, 6]  # the last of each epoch
    assert measured['images_per_second'] > 0
    assert '| P2T-T |' in result.stdout
    assert not list(work_dir.rglob('*.pth'))
    assert not (work_dir / 'last_checkpoint').exists()

    again = tool_here(TRAIN_ALL, *words)
    assert again.returncode == 0, again.stderr
    assert 'learning rate 0.001' not in again.stdout
