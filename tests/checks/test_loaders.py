"""Settings of loaders that exclude each other, epochs without a batch, and batches that do not fit are named."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from torch import nn

from helpers import write_image
from scopevit import ScopeViT
from scopevit.checks.loaders import (
    check_channels_of_images,
    check_count,
    check_settings,
    check_sizes,
    collate_of,
)


def config(**settings):
    return Config(dict(train_dataloader=settings, val_dataloader=settings))


@pytest.mark.parametrize('name', ['persistent_workers', 'prefetch_factor'])
def test_what_needs_workers_is_named_without_them(name):
    (finding,) = check_settings(config(num_workers=0, **{name: 2}), 'train')
    assert finding.severity == 'error'
    assert f'train_dataloader.{name}=2 needs workers' in finding.text
    assert list(check_settings(config(num_workers=1, **{name: 2}), 'train')) == []


@pytest.mark.parametrize(
    ('count', 'drop_last', 'sampler', 'is_named'),
    [(3, True, 'DefaultSampler', True), (3, False, 'DefaultSampler', False), (4, True, 'DefaultSampler', False),
     (3, True, 'InfiniteSampler', False)],
)  # fmt: skip
def test_fewer_images_than_a_batch(count, drop_last, sampler, is_named):
    cfg = config(batch_size=4, drop_last=drop_last, sampler=dict(type=sampler))
    findings = list(check_count(cfg, 'train', count))
    assert len(findings) == is_named
    assert all('3 images are fewer than a batch has (4 on' in finding.text for finding in findings)


class Images:
    """A data set whose images have the sizes of their files."""

    def __init__(self, folder, sizes, channels=3):
        self.paths = [str(write_image(folder / f'{i}.png', size=size)) for i, size in enumerate(sizes)]
        self.sizes, self.channels = sizes, channels

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, i):
        return dict(img_path=self.paths[i])

    def __getitem__(self, i):
        return dict(inputs=torch.zeros(self.channels, *self.sizes[i]), data_samples=0)


class Preprocessor(nn.Module):
    def forward(self, data, training):
        return torch.stack(list(data['inputs']))


def test_images_of_several_sizes_in_one_batch(tmp_path):
    model = SimpleNamespace(data_preprocessor=Preprocessor())
    one, several = Images(tmp_path / 'a', [(8, 8)] * 3), Images(tmp_path / 'b', [(8, 8), (8, 8), (9, 8)])
    for collate in (pseudo_collate, default_collate):
        (finding,) = check_sizes(config(batch_size=2), 'val', several, collate, model)
        assert 'val_dataloader.batch_size is 2, but images of several sizes' in finding.text
        assert '2.png' in finding.text
        assert 'set val_dataloader.batch_size=1' in finding.text
        assert list(check_sizes(config(batch_size=2), 'val', one, collate, model)) == []
        assert list(check_sizes(config(batch_size=1), 'val', several, collate, model)) == []


def test_a_preprocessor_that_writes_into_items_is_no_fault(tmp_path):
    """mmpretrain's does so for mixup: a class becomes a score for each class."""
    from mmpretrain.models import ClsDataPreprocessor
    from mmpretrain.structures import DataSample

    class Labelled(Images):
        def __getitem__(self, i):
            return dict(inputs=torch.zeros(3, 32, 32), data_samples=DataSample().set_gt_label(i))

    model = SimpleNamespace(data_preprocessor=ClsDataPreprocessor(num_classes=2, to_onehot=True))
    data = Labelled(tmp_path, [(40, 40), (50, 40)])
    assert list(check_sizes(config(batch_size=2), 'val', data, default_collate, model)) == []


def test_batches_are_made_as_the_config_says():
    assert collate_of(config(collate_fn=dict(type='default_collate')), 'val').func is default_collate
    assert collate_of(config(), 'val').func is pseudo_collate


def test_channels_of_images_and_model(tmp_path):
    def model(channels):
        holder = nn.Module()
        holder.backbone = ScopeViT('xtiny', in_channels=channels)
        return holder

    data = Images(tmp_path, [(8, 8)], channels=1)
    (finding,) = check_channels_of_images('train', data, model(3))
    assert 'images have 1 channels, but the model takes 3: set model.backbone.in_channels=1' in finding.text
    assert list(check_channels_of_images('train', data, model(1))) == []
