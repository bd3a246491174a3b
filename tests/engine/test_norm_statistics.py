"""Batch norms' statistics are computed again over a config's training data."""

import pytest
import torch
from mmengine.config import Config

from helpers import fails_cleanly, image_folders, tool_here
from scopevit.apis.model import build_model
from scopevit.utils.checkpoint import read_checkpoint

CONFIG = """
_base_ = 'mmpretrain::_base_/default_runtime.py'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=3, mean=[100, 100, 100], std=[50, 50, 50]),
    backbone=dict(type='scopevit.ScopeViT', norm_eval={norm_eval}, rel_pos_drop=0.0,
        arch=dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 4))),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=64, topk=(1,), loss=dict(type='CrossEntropyLoss')))
train_dataloader = dict(batch_size=6, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'), dataset=dict(type='CustomDataset', data_root='{root}', data_prefix='train',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two checkpoints of random weights, with configs whose norms train or do not."""
    folder = tmp_path_factory.mktemp('norms')
    root = image_folders(folder / 'data', train=2)  # six images: one batch
    for name, norm_eval in (('trains', False), ('frozen', True)):
        (folder / f'{name}.py').write_text(CONFIG.format(root=root, norm_eval=norm_eval))
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        model = build_model(Config.fromfile(folder / 'trains.py'))
        for value in model.state_dict().values():
            value.add_(torch.rand_like(value) / 10 if value.is_floating_point() else epoch)
        torch.save(
            dict(state_dict=model.state_dict(), meta=dict(iter=epoch, epoch=epoch)), folder / f'epoch_{epoch}.pth'
        )
    return folder


def average(folder, out, *words):
    result = tool_here('converters/average_checkpoints.py', folder, '--last', 2, '--out', out, *words)
    return result, read_checkpoint(out)['state_dict'] if result.returncode == 0 else None


def test_statistics_are_those_of_the_averaged_weights(folder, tmp_path):
    _, plain = average(folder, tmp_path / 'plain.pth')
    result, found = average(folder, tmp_path / 'out.pth', '--recompute-norms', folder / 'trains.py')
    assert 'statistics of 21 batch norms recomputed over 1 batches' in result.stdout, result.stderr
    # What one batch of all images leaves in norms that remember nothing else.
    cfg = Config.fromfile(folder / 'trains.py')
    model = build_model(cfg, str(tmp_path / 'plain.pth')).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    init_default_scope('mmpretrain')
    (batch,) = Runner.build_dataloader(cfg.train_dataloader, seed=5)
    with torch.no_grad():
        model(**model.data_preprocessor(batch, True), mode='loss')
    expected, changed = model.state_dict(), []
    for name, value in found.items():
        if 'running_' in name:
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
            changed.append(not torch.allclose(value, plain[name], rtol=0.1))
        elif 'num_batches_tracked' not in name:
            assert torch.equal(value, plain[name])
    assert sum(changed) > 30


def test_norms_that_do_not_train_keep_theirs(folder, tmp_path):
    _, plain = average(folder, tmp_path / 'plain.pth')
    result, found = average(folder, tmp_path / 'out.pth', '--recompute-norms', folder / 'frozen.py')
    assert 'statistics of 0 batch norms' in result.stdout
    assert all(torch.equal(value, plain[name]) for name, value in found.items())


def test_a_config_of_another_model_or_without_its_data_is_named(folder, tmp_path):
    for words, says in (
        (('--cfg-options', 'model.head.num_classes=4'), 'is of another model than the config describes'),
        (('--cfg-options', 'train_dataloader.dataset.data_root=nowhere'), 'nowhere'),
    ):
        result, _ = average(folder, tmp_path / 'out.pth', '--recompute-norms', folder / 'trains.py', *words)
        fails_cleanly(result, says)
        assert not (tmp_path / 'out.pth').exists()
