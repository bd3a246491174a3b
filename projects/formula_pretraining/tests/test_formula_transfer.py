"""Transfer: its cells, that they go on and are not repeated, and its table."""

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
from scopevit.models import ScopeViT
from scopevit.utils.errors import UserError


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


def test_the_last_validation_counts_and_iterations_that_were_repeated_count_once(tmp_path):
    starts = [
        [dict(loss=1, iter=2, time=1.0), dict(loss=1, iter=4, time=2.0)],
        [dict(loss=1, iter=4, time=3.0), {'coco/bbox_mAP_50': 0.25, 'time': 9.0, 'step': 2}],
    ]
    for i, lines in enumerate(starts):
        path = tmp_path / f'2026010{i}' / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    cell = transfer.Cell('none', None, 'crowns', 'frozen', 0)
    assert transfer.collect(cell, tmp_path) == dict(value=25, seconds=8)
    path.write_text(json.dumps(dict(time=9.0, step=2)))  # no box was found
    assert transfer.collect(cell, tmp_path)['value'] == 0
    with pytest.raises(UserError, match='has no mIoU: remove that folder'):
        transfer.collect(replace(cell, data='nuclei'), tmp_path)


def test_table_has_mean_least_and_most():
    found = [
        dict(source=source, data='fashion-mnist-100', mode='frozen', seed=seed, value=value + seed, seconds=90)
        for source, value in (('none', 50), ('formulas', 60.25))
        for seed in range(3)
    ]
    text = transfer.report(found[:4], ['none', 'formulas', 'scenes'], [0, 1, 2])
    assert '| fashion-mnist-100 | frozen | top-1 | 51.0 (50.0..52.0) | 60.2, 1 of 3 seeds |  | 1.5 |' in text
    assert 'fine-tuned' not in text
    assert 'Mean of seeds 0, 1, 2' in text


def test_the_command_shows_what_is_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, 'run', None)  # nothing is trained
    monkeypatch.setattr(transfer.signal, 'signal', lambda *_: None)  # which would stay in this process
    for seed, value in enumerate((40, 42)):
        cell = transfer.Cell('none', None, 'fashion-mnist-600', 'frozen', seed)
        state = dict(identity=cell.identity(), result=dict(value=value, seconds=60))
        transfer.write_json(str(cell.folder(tmp_path) / 'cell.json'), state)
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
def test_a_cell_is_trained_goes_on_and_is_not_repeated(tmp_path, fashion_mnist, monkeypatch, capsys):
    torch.manual_seed(0)
    weights = {f'backbone.{name}': value for name, value in ScopeViT('xtiny').state_dict().items()}
    checkpoint = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=weights), checkpoint)
    cell = transfer.Cell('formulas', str(checkpoint), 'fashion-mnist-100', 'frozen', 1)
    options = [f'{split}_dataloader.dataset.data_root={fashion_mnist}' for split in ('train', 'val', 'test')]
    options += ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'val_dataloader.dataset.indices=20']
    options += ['default_hooks.checkpoint.interval=1', 'log_processor.window_size=1', 'default_hooks.logger.interval=1']
    folder = cell.folder(tmp_path)

    words = cell.command(folder, options)[2:]

    # Stopped after the first of two epochs: a checkpoint is there, a result is not
    transfer.write_json(str(folder / 'cell.json'), dict(identity=cell.identity(options), result=None))
    tool_here('train.py', *words, 'train_cfg.max_epochs=1', check=True)
    assert (folder / 'epoch_1.pth').exists()

    transfer.run([cell], tmp_path, options=options)
    (found,) = transfer.results([cell], tmp_path, options)
    assert 0 <= found['value'] <= 100
    assert found['seconds'] > 0
    assert '0 of 1 trainings are finished' in (printed := capsys.readouterr().out)
    assert 'fashion-mnist-100, frozen, formulas, seed 1: top-1' in printed
    assert {line['epoch'] for line in transfer.log_lines(folder) if 'loss' in line} == {1, 2}
    assert 'Resumed at iteration 2' in (folder / 'output.txt').read_text()
    assert not list(folder.glob('*.pth'))

    monkeypatch.setattr(transfer, '_start', None)  # nothing is trained again
    transfer.run([cell], tmp_path, options=options)
    assert transfer.results([cell], tmp_path, options) == [found]
    with pytest.raises(UserError, match=r'is of other recipe: choose another --work-dir'):
        transfer.run([cell], tmp_path)
    checkpoint.write_bytes(b'other')
    with pytest.raises(UserError, match=r'is of other weights: choose another --work-dir'):
        transfer.run([cell], tmp_path, options=options)
