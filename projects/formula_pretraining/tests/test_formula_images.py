"""The data set of formulas, and a training of two iterations with it."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from helpers import ROOT, tool_here
from projects.formula_pretraining.formula_images import FormulaImages
from projects.formula_pretraining.formulas import make_image
from scopevit.utils.errors import UserError

CONFIGS = sorted((ROOT / 'projects/formula_pretraining/configs').glob('*_formulas-*.py'))


def test_items_are_images_and_labels_of_all_classes_in_turn():
    data = FormulaImages(num_classes=4, instances=3, first=7, size=32, seed=2)
    assert len(data) == 12
    assert data.metainfo['classes'] == ('iterated 0', 'contours 0', 'iterated 1', 'contours 1')
    assert [data.get_data_info(i)['gt_label'] for i in range(12)] == [0, 1, 2, 3] * 3
    item = data[6]
    assert np.array_equal(item['img'], make_image('iterated', 1, 8, 32, 2))
    assert item['img_shape'] == (32, 32)
    assert item['sample_idx'] == 6
    assert np.array_equal(data[-1]['img'], data[11]['img'])
    with pytest.raises(IndexError):
        data[12]


def test_a_part_of_it_and_a_copy_of_it_have_the_same_items():
    data = FormulaImages(num_classes=4, instances=3, indices=[9, 2])
    whole = FormulaImages(num_classes=4, instances=3)
    assert len(data) == 2
    assert np.array_equal(data[0]['img'], whole[9]['img'])
    assert len(FormulaImages(num_classes=4, instances=3, indices=5)) == 5
    copy = pickle.loads(pickle.dumps(whole))  # to a worker
    assert np.array_equal(copy[9]['img'], whole[9]['img'])


def test_millions_of_images_take_no_memory():
    data = FormulaImages(num_classes=3, instances=10**9, families=['contours'])
    assert len(data) == 3 * 10**9
    assert len(pickle.dumps(data)) < 10_000
    assert data[3 * 10**9 - 1]['gt_label'] == 2


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        (dict(families=['fractal']), 'families are iterated, contours, but got fractal'),
        (dict(families=[]), 'families are .* but got none'),
        (dict(num_classes=0), 'num_classes and instances of at least 1'),
        (dict(first=-1), 'first and seed of at least 0'),
        (dict(size=8), 'from 16 to 256 pixels, but is 8'),
    ],
)
def test_wrong_settings_are_named(settings, says):
    with pytest.raises(UserError, match=says):
        FormulaImages(**settings)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_configs_train_and_validate_with_other_images_of_the_same_classes(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    assert train.metainfo['classes'] == val.metainfo['classes']
    assert len(train.metainfo['classes']) == cfg.model.head.num_classes == cfg.data_preprocessor.num_classes
    assert (train.seed, train.families, train.size) == (val.seed, val.families, val.size)
    assert train.first + train.instances <= val.first
    assert train[0]['inputs'].shape == val[0]['inputs'].shape == (3, train.size, train.size)
    assert f'{cfg.train_cfg.max_epochs}e_' in path.name
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs
    assert f'b{cfg.train_dataloader.batch_size}-' in path.name
    assert f'{train.size}px' in path.name


@pytest.mark.slow
def test_two_iterations_with_a_worker_are_those_of_a_run_that_stopped_after_one(tmp_path):
    options = ['train_dataloader.batch_size=4', 'train_dataloader.dataset.indices=8', 'train_cfg.val_interval=2']
    options += ['val_dataloader.dataset.indices=4', 'default_hooks.checkpoint.max_keep_ckpts=-1']
    options += ['train_dataloader.num_workers=1', 'default_hooks.checkpoint.by_epoch=False']
    options += ['default_hooks.checkpoint.interval=1', 'train_cfg.max_epochs=1', 'val_dataloader.num_workers=1']
    (config,) = [path for path in CONFIGS if '32px' in path.name]
    command = ['train.py', config, '--seed', 0, '--cfg-options', *options, '--work-dir']
    tool_here(*command, tmp_path / 'straight', check=True)
    first = tmp_path / 'straight' / 'iter_1.pth'
    tool_here(*command, tmp_path / 'resumed', '--resume', first, check=True)
    states = [
        torch.load(tmp_path / run / 'iter_2.pth', weights_only=False)['state_dict'] for run in ('straight', 'resumed')
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    before = torch.load(first, weights_only=False)['state_dict']
    assert not torch.equal(before['head.fc.weight'], states[0]['head.fc.weight'])
