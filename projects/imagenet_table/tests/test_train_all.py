"""The comparison on small images: the same recipe for all, models of the right kind, trainings that go on."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from helpers import fails_cleanly, tool, tool_here
from projects.imagenet_table.rows import ROOT, ROWS
from projects.imagenet_table.train_all import parse_args, prepare, small_config
from scopevit.engine.errors import UserError

TRAIN_ALL = ROOT / 'projects' / 'imagenet_table' / 'train_all.py'
HERE = [row for row in ROWS if row.source.startswith(('here', 'mmpretrain', 'scopevit'))]


@pytest.mark.parametrize('row', HERE, ids=lambda row: row.name)
def test_small_models_take_grey_images_of_ten_classes(row):
    cfg = small_config(row, parse_args(['--size', '64']))
    backbone, head = cfg.model.backbone, cfg.model.head
    own = row.load().model
    changed = {key for key in backbone if backbone[key] != own.backbone.get(key)}
    assert changed <= {'in_channels', 'img_size', 'pad_small_map'}
    assert {key for key in head if head[key] != own.head.get(key)} == {'num_classes', 'topk'}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 1, 64, 64), mode='tensor').shape == (2, 10)


def test_all_rows_have_the_same_recipe():
    args = parse_args(['--size', '64', '--epochs', '36', '--batch', '32', '--lr', '0.002'])
    names = ('Swin-2G', 'PVT-Small', 'P2T-T', 'EViT-S', 'CoaT Mini', 'ScopeViT-T')  # of every kind
    first, *others = (small_config(row, args) for row in ROWS if row.name in names)
    for cfg in others:
        for key in ('train_dataloader', 'val_dataloader', 'param_scheduler', 'train_cfg', 'data_preprocessor'):
            assert cfg[key] == first[key]
        assert cfg.optim_wrapper.optimizer == first.optim_wrapper.optimizer
    assert first.optim_wrapper.optimizer.lr == 0.002
    assert (first.train_dataloader.batch_size, first.train_cfg.max_epochs) == (32, 36)
    assert [(step.get('begin', 0), step.end) for step in first.param_scheduler] == [(0, 4), (4, 36)]
    for loader in (first.train_dataloader, first.val_dataloader):
        assert loader.dataset.pipeline[0].scale == 64
    assert first.train_dataloader.dataset.pipeline[1].crop_size == 64


def test_folders_are_not_mixed(tmp_path):
    rows = HERE[:2]
    paths = prepare(rows, parse_args(['--folder', str(tmp_path)]))
    assert [Config.fromfile(path).train_cfg.max_epochs for path in paths.values()] == [18, 18]
    prepare(rows, parse_args(['--folder', str(tmp_path)]))
    with pytest.raises(UserError, match='other settings'):
        prepare(rows, parse_args(['--folder', str(tmp_path), '--lr', '0.1']))


def test_refuses_what_cannot_be_trained(tmp_path):
    fails_cleanly(tool_here(TRAIN_ALL, '--data', tmp_path), 'fashion_mnist.py unpack')
    (tmp_path / 'train-images-idx3-ubyte').touch()
    fails_cleanly(tool_here(TRAIN_ALL, '--data', tmp_path, '--size', 48), 'multiple of 32')


@pytest.mark.slow
def test_trains_goes_on_and_writes_the_comparison(tmp_path):
    tool('data/fashion_mnist.py', 'unpack', '--out', tmp_path / 'data')
    words = ['--data', tmp_path / 'data', '--folder', tmp_path / 'runs', '--out', tmp_path / 'page']
    words += ['--images', 8, '--batch', 4, '--epochs', 2, '--seeds', 0, '--rows']
    result = tool_here(TRAIN_ALL, *words, 'P2T-T')
    assert result.returncode == 0, result.stderr
    result = tool_here(TRAIN_ALL, *words, 'P2T-T', 'ScopeViT-T')
    assert result.returncode == 0, result.stderr
    assert 'seed 0, P2T-T' not in result.stdout
    assert 'seed 0, ScopeViT-T' in result.stdout
    facts = json.loads((tmp_path / 'page.json').read_text())
    assert [row['name'] for row in facts['rows']] == ['P2T-T', 'ScopeViT-T']
    for training in facts['trainings']:
        assert len(training['accuracies']) == len(training['losses']) == 2
        assert training['images_per_second'] > 0
    assert (tmp_path / 'page.png').stat().st_size > 10_000
    assert '8 grey images' in (tmp_path / 'page.md').read_text()
    assert not list((tmp_path / 'runs').rglob('*.pth'))
