"""The comparison on small images: one recipe for all, models of the right kind, trainings that go on."""

import json
import math
import struct
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
from projects.imagenet_table.train_all import measure, parse_args, report, training, write_config
from projects.trainings import locked, read_log
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
    def begun(*words):
        args = parse(*words)
        write_config(BY_NAME['P2T-T'], args)
        return training(BY_NAME['P2T-T'], 5e-4, 0, args)

    begun().note(None)
    assert begun('--seeds', 5, '--workers', 2).result() is None
    for words in (['--amp'], ['--count', 8], ['--epochs', 4]):
        with pytest.raises(UserError, match='lr0.0005-seed0 is of another recipe'):
            begun(*words).result()


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


def test_a_second_process_does_not_even_time_the_rows(parse, monkeypatch):
    monkeypatch.setattr(train_all, 'estimate', lambda *_: pytest.fail('timed'))
    args = parse('--rows', 'P2T-T')
    with locked(args.work_dir), pytest.raises(UserError, match='still runs'):
        train_all.train_all(args)


def test_estimate_goes_on_after_a_row_that_fails(parse, monkeypatch, capsys):
    failing = SimpleNamespace(label='P2T-T', error='RuntimeError: out of luck')
    timed = SimpleNamespace(label='ScopeViT-T', error=None, images_per_second=10.0)
    monkeypatch.setattr(train_all, 'compare', lambda entries, settings: SimpleNamespace(results=[failing, timed]))
    monkeypatch.setattr(train_all.Trainer, 'run', lambda *args: pytest.fail('trained'))
    args = parse('--rows', 'P2T-T', 'ScopeViT-T', '--estimate')
    train_all.train_all(args)
    printed = capsys.readouterr().out
    assert 'P2T-T: RuntimeError: out of luck' in printed
    assert 'ScopeViT-T: 10 images/s' in printed


def test_what_a_training_logged(parse, tmp_path):
    file = tmp_path / '1' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test' / 'metrics.json').write_text('{"accuracy/top1": 71.0}')
    lines = [dict(loss=2.0, iter=1, time=0.5, data_time=0.1), {'accuracy/top1': 30.0, 'step': 1}]
    lines += [dict(loss=math.nan, iter=2, time=0.5, data_time=0.1), {'accuracy/top1': 50.0, 'step': 2}]
    file.write_text('\n'.join(map(json.dumps, lines)))
    ended = SimpleNamespace(folder=tmp_path)
    found = measure(ended, parse('--epochs', 2, '--batch-size', 4))
    assert (found['accuracy'], found['held_out'], found['losses']) == (71.0, [30.0, 50.0], [[1, 2.0], [2, None]])
    assert (found['images_per_second'], found['seconds_per_epoch'], found['part_waiting_for_data']) == (8, 1.5, 0.2)
    assert measure(ended, parse('--epochs', 3)) is None


# The whole, with trainings that are not run


def result_of(row, lr, seed, accuracy=70.0):
    machine = dict(device='CPU', cpu='X', threads=2, cores=2, torch='2', date='2026-11-23', load=0.0, capability='none')
    speed = dict(images_per_second=10.0, seconds_per_epoch=1.2, part_waiting_for_data=0.1)
    numbers = dict(accuracy=accuracy, held_out=[50.0, accuracy], losses=[[10, 2.0], [20, None], [30, 1.0]])
    return dict(row=row.name, lr=lr, seed=seed, **numbers, **speed, machine=machine)


@pytest.fixture
def run(monkeypatch):
    """What to do in place of trainings, by their names; those of no accuracy fail."""
    accuracies, asked = {}, []

    def run_all(trainer, trainings):
        asked.extend(own.name for own in trainings)
        trainer.failures += [f'{own.name}: out of memory' for own in trainings if own.facts['row'] not in accuracies]
        return [
            result_of(BY_NAME[row], lr, seed, accuracies[row](lr))
            for row, lr, seed in (own.facts.values() for own in trainings)
            if row in accuracies
        ]

    monkeypatch.setattr(train_all.Trainer, 'run', run_all)
    monkeypatch.setattr(train_all, 'estimate', lambda rows, args: None)
    return accuracies, asked


def test_rate_of_a_row_is_the_one_best_on_held_out_images(parse, monkeypatch, run):
    accuracies, asked = run
    accuracies.update({'P2T-T': lambda lr: 100 * lr, 'DeiT-S': lambda lr: -lr})
    reported = []
    monkeypatch.setattr(train_all, 'report', lambda rows, results, *_: reported.append([r['lr'] for r in results]))
    train_all.train_all(parse('--rows', 'P2T-T', 'DeiT-S', '--lr', 0.1, 0.2, '--seeds', 2))
    assert len(asked) == 6
    assert asked[4:] == ['DeiT-S, learning rate 0.1, seed 1', 'P2T-T, learning rate 0.2, seed 1']
    assert reported == [[0.1, 0.2], [0.1, 0.2, 0.1, 0.2]]


def test_failures_are_told_and_nothing_is_reported_of_nothing(parse, run):
    with pytest.raises(UserError, match='DeiT-S, .*, seed 0: out of memory; P2T-T, .*, seed 0: out of memory'):
        train_all.train_all(parse('--rows', 'P2T-T', 'DeiT-S', '--lr', 0.1))


def test_page_says_what_is_missing(parse, tmp_path, monkeypatch):
    rows = [BY_NAME[name] for name in ('P2T-T', 'ScopeViT-T')]
    args = parse('--seeds', 2, '--table', tmp_path / 'page.v1.md')
    for row in rows:
        write_config(row, args)
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


def test_page_says_how_sure_an_accuracy_is(parse, tmp_path):
    row, args = BY_NAME['P2T-T'], parse('--table', tmp_path / 'page.md')
    write_config(row, args)
    results = [result_of(row, 5e-4, seed) for seed in (0, 1)]
    report([row], results, results, args)
    page = (tmp_path / 'page.md').read_text()
    assert '2026-11-23, CPU: 2 threads on 2 cores of X (none); torch 2.' in page
    assert 'an accuracy of 70 % a standard error of 16.2 points' in page  # of 8 images


@pytest.mark.slow
def test_a_training_goes_on_after_an_interruption(data, tmp_path):
    words = ['--data', data, '--work-dir', tmp_path / 'runs', '--rows', 'P2T-T']
    words += ['--size', 32, '--count', 12, '--batch-size', 4, '--epochs', 2, '--seeds', 1, '--lr', 0.001]
    row, args = BY_NAME['P2T-T'], parse_args(list(map(str, words)))
    config, own = write_config(row, args), training(row, 0.001, 0, args)
    own.note(None)
    work_dir = own.folder
    assert Config.fromfile(config).train_cfg.max_epochs == 2
    options = [*own.command('train')[2:], 'train_cfg.max_epochs=1']
    tool('train.py', *options, env=dict(PYTHONPATH=str(ROOT)))
    assert [line['step'] for line in read_log(work_dir).validations] == [1]

    result = tool_here(TRAIN_ALL, *words)
    assert result.returncode == 0, result.stderr
    assert '1 trainings, about' in result.stdout
    assert 'goes on from epoch 1' in (work_dir / 'output.txt').read_text()
    measured = own.result()
    assert len(measured['held_out']) == 2
    assert [step for step, _ in measured['losses'] if step % 3 == 0] == [3, 6]  # the last of each epoch
    assert measured['images_per_second'] > 0
    assert '| P2T-T |' in result.stdout
    assert not list(work_dir.rglob('*.pth'))
    assert not (work_dir / 'last_checkpoint').exists()

    again = tool_here(TRAIN_ALL, *words)
    assert again.returncode == 0, again.stderr
    assert 'learning rate 0.001' not in again.stdout
