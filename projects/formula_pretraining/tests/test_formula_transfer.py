"""Transfer: its trainings, what they measure, and its table."""

import argparse
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from helpers import tool_here
from projects.formula_pretraining import transfer
from projects.formula_pretraining.few_fashion_mnist import FewFashionMNIST
from projects.trainings import comparing, read_log
from scopevit.models import ScopeViT
from scopevit.utils.errors import UserError

MACHINE = dict(device='CPU', cpu='X', threads=1, cores=2, torch='2', date='2026-11-27', capability='none', load=1.0)


@pytest.fixture(scope='module')
def fashion_mnist(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'fashion_mnist_subset'
    tool_here('data/fashion_mnist.py', 'unpack', '--out-dir', out, check=True)
    return out


def test_few_images_of_each_class_in_three_channels(fashion_mnist):
    settings = dict(data_root=str(fashion_mnist), split='train', download=False)
    first, second, again = (FewFashionMNIST(per_class=200, fold=fold, **settings) for fold in (0, 1, 3))
    assert len(first) == 2000
    labels = [int(first.get_data_info(i)['gt_label']) for i in range(2000)]
    assert np.bincount(labels).tolist() == [200] * 10
    image = first[0]['img']
    assert image.shape == (28, 28, 3)
    assert (image[..., :1] == image).all()
    images = [{item['img'].tobytes() for item in map(data.get_data_info, range(2000))} for data in (first, second)]
    assert len(images[0] & images[1]) < 5  # there are twins in Fashion-MNIST
    assert np.array_equal(first[5]['img'], again[5]['img'])
    with pytest.raises(UserError, match='per_class of FewFashionMNIST is 601, but class 0 has 600'):
        FewFashionMNIST(per_class=601, **settings)


@pytest.mark.parametrize('name', transfer.SETS)
def test_recipes_say_what_they_are_called_and_validate_once_at_the_end(name):
    task = transfer.SETS[name]
    cfg = Config.fromfile(transfer.PROJECT / 'configs' / f'{task.config}.py')
    epochs = cfg.train_cfg.max_epochs
    assert cfg.train_cfg.val_interval == epochs == cfg.param_scheduler[-1].end
    assert epochs % cfg.default_hooks.checkpoint.interval == 0
    assert f'1xb{cfg.train_dataloader.batch_size}-{epochs}e_' in task.config
    assert cfg.model.backbone.get('in_channels', 3) == 3
    assert cfg.model.backbone.arch == 'xtiny'


def test_sources_are_names_with_checkpoints(tmp_path):
    checkpoint = tmp_path / 'a=b.pth'
    checkpoint.touch()
    assert transfer.parse_source('none') == ('none', None)
    assert transfer.parse_source(f'formulas={checkpoint}') == ('formulas', str(checkpoint))
    for text, says in (
        ('formulas=nowhere.pth', 'nowhere.pth does not exist'),
        ('formulas=', 'the checkpoint does not exist'),
        ('a/b=c', 'takes NAME=CHECKPOINT'),
        ('../a', 'takes NAME=CHECKPOINT'),
    ):
        with pytest.raises(UserError, match=says):
            transfer.parse_source(text)


def test_missing_data_are_named_with_what_makes_them(monkeypatch):
    monkeypatch.setitem(transfer.SETS, 'crowns', replace(transfer.SETS['crowns'], data='data/not_there'))
    with pytest.raises(UserError, match='data/not_there does not exist: .*tree_crowns/README.md'):
        transfer.check_sets(['crowns'])


def test_the_last_validation_counts(tmp_path):
    path = tmp_path / '1' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    ended = transfer.training('none', None, 'crowns', 'frozen', 0, tmp_path)
    ended = replace(ended, folder=tmp_path)
    assert transfer.measure(ended) is None
    lines = [dict(loss=1, iter=2, time=1.0), dict(loss=1, iter=4, time=3.0)]
    lines += [{'coco/bbox_mAP_50': 0.5, 'step': 1}, {'coco/bbox_mAP_50': 0.25, 'step': 2}]
    path.write_text('\n'.join(map(json.dumps, lines)))
    assert transfer.measure(ended) == dict(value=25, seconds=8)
    path.write_text('\n'.join(map(json.dumps, [*lines, dict(time=9.0, step=2)])))  # no box was found
    assert transfer.measure(ended)['value'] == 0
    assert transfer.measure(replace(ended, facts=dict(data='nuclei'))) is None


def test_table_has_mean_least_and_most():
    common = dict(data='fashion-mnist-100', mode='frozen', seconds=90, machine=MACHINE)
    found = [
        dict(source=source, **common, seed=seed, value=value + seed)
        for source, value in (('none', 50), ('formulas', 60.25))
        for seed in range(3)
    ]
    text = transfer.report(found[:4], ['none', 'formulas', 'scenes'], [0, 1, 2])
    assert '| fashion-mnist-100 | frozen | top-1 | 51.0 (50.0..52.0) | 60.2, 1 of 3 seeds |  | 1.5 |' in text
    assert 'fine-tuned' not in text
    assert 'Mean of seeds 0, 1, 2' in text


def test_the_command_shows_what_is_finished(tmp_path, monkeypatch, capsys):
    work_dir = tmp_path.resolve()
    for seed, value in enumerate((40, 42)):
        own = transfer.training('none', None, 'fashion-mnist-600', 'frozen', seed, work_dir)
        own.note(dict(**own.facts, value=value, seconds=60, machine=MACHINE))
    command = ['transfer.py', '--finished', '--work-dir', str(tmp_path), '--table', str(tmp_path / 'table.md')]
    monkeypatch.setattr(sys, 'argv', command)
    transfer.main()
    row = '| fashion-mnist-600 | frozen | top-1 | 41.0 (40.0..42.0), 2 of 3 seeds | 1.0 |'
    assert row in capsys.readouterr().out
    assert row in (tmp_path / 'table.md').read_text()
    found = json.loads((tmp_path / 'results.json').read_text())
    assert [(result['seed'], result['value']) for result in found] == [(0, 40), (1, 42)]
    monkeypatch.setattr(sys, 'argv', [*command, '--sources', 'none', 'none'])
    with pytest.raises(SystemExit, match='error: --sources has a name twice'):
        transfer.main()


@pytest.mark.slow
def test_a_training_goes_on_and_is_measured(tmp_path, fashion_mnist, capsys):
    torch.manual_seed(0)
    weights = {f'backbone.{name}': value for name, value in ScopeViT('xtiny').state_dict().items()}
    checkpoint = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=weights), checkpoint)
    options = [f'{split}_dataloader.dataset.data_root={fashion_mnist}' for split in ('train', 'val', 'test')]
    options += ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'val_dataloader.dataset.indices=20']
    options += ['default_hooks.checkpoint.interval=1', 'log_processor.window_size=1', 'default_hooks.logger.interval=1']
    own = transfer.training('formulas', str(checkpoint), 'fashion-mnist-100', 'frozen', 1, tmp_path)
    own = replace(own, options=(*own.options, *options))

    # Stopped after the first of two epochs: a checkpoint is there, a result is not
    own.note(None)
    tool_here('train.py', *own.command('train')[2:], 'train_cfg.max_epochs=1', check=True)
    assert (own.folder / 'epoch_1.pth').exists()

    with comparing(argparse.Namespace(work_dir=tmp_path), transfer.measure, transfer.says) as trainer:
        (found,) = trainer.run([own])
    assert 0 <= found['value'] <= 100
    assert found['seconds'] > 0
    assert 'fashion-mnist-100, frozen, formulas, seed 1 ... top-1' in capsys.readouterr().out
    assert {step['epoch'] for step in read_log(own.folder).steps.values()} == {1, 2}
    assert 'Resumed at iteration 2' in (own.folder / 'output.txt').read_text()
    assert not list(own.folder.glob('*.pth'))
    assert own.result() == found
