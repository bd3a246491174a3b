"""What else of a config is adapted to another backbone: weights, normalisation, the optimizer's settings."""

import logging
import re

import pytest

from helpers import small_config
from scopevit.swap import list_notes, load_and_swap, swap_backbone
from scopevit.utils.config import load_config, parse_pairs


def test_weights_and_optimizer_settings_of_the_old_backbone_go():
    cfg = small_config(init_cfg=dict(type='Pretrained', checkpoint='https://example.org/resnet18.pth'))
    cfg.load_from = 'whole_model.pth'
    cfg.optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=1e-3),
        constructor='LearningRateDecayOptimWrapperConstructor',
        paramwise_cfg=dict(
            layer_decay_rate=0.7, custom_keys={'.cls_token': dict(decay_mult=0.0), 'backbone': dict(lr_mult=0.1)}
        ),
    )
    new = swap_backbone(cfg, 'xtiny', drop_path_rate=0.2)
    assert 'init_cfg' not in new.model
    assert new.load_from is None
    assert new.optim_wrapper.constructor == 'scopevit.LayerDecayOptimWrapperConstructor'
    assert new.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.7, custom_keys=dict(backbone=dict(lr_mult=0.1)))
    assert new.model.backbone.drop_path_rate == 0.2
    assert new.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert new.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert new.data_preprocessor.to_rgb


def swapped_without_trial(cfg, arch='xtiny'):
    return swap_backbone(cfg, arch, check=lambda new: None)


@pytest.mark.parametrize(
    'before',
    [
        dict(),  # raw, as YOLOX takes images
        dict(mean=[0, 0, 0], std=[255.0, 255.0, 255.0], to_rgb=True),
        dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=False),
        dict(mean=[122.770938, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305], to_rgb=True),
    ],
    ids=['none', 'to 0..1', 'to -1..1', 'of CLIP'],
)
def test_normalisation_for_the_old_weights_becomes_imagenets(before):
    cfg = small_config()
    cfg.data_preprocessor = dict(num_classes=5, **before)
    new = swapped_without_trial(cfg)
    imagenet = dict(num_classes=5, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
    assert new.data_preprocessor == imagenet
    assert list_notes(new) == []


def test_detectors_without_normalisation_get_one_in_rgb():
    for name in ('yolox/yolox_s_8xb8-300e_coco.py', 'yolo/yolov3_d53_8xb8-ms-416-273e_coco.py'):
        preprocessor = swapped_without_trial(load_config(f'mmdet::{name}')).model.data_preprocessor
        assert preprocessor.mean == [123.675, 116.28, 103.53]
        assert preprocessor.std == [58.395, 57.12, 57.375]
        assert preprocessor.bgr_to_rgb


@pytest.mark.parametrize(
    ('mean', 'std'),
    [([125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]), ([33.46, 33.46, 33.46], [78.87, 78.87, 78.87])],
)
def test_normalisation_of_certain_data_stays_and_is_named(mean, std):
    cfg = small_config()
    cfg.data_preprocessor.update(mean=mean, std=std)
    new = swapped_without_trial(cfg)
    assert (new.data_preprocessor.mean, new.data_preprocessor.std) == (mean, std)
    (note,) = list_notes(new)
    assert note.startswith(f'data_preprocessor: mean {mean} and std {std} stay')


def test_normalisation_in_a_pipeline_stays_and_is_named(tmp_path, caplog):
    cfg = small_config()
    cfg.data_preprocessor = dict(num_classes=5)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='Normalize', mean=[1, 2, 3], std=[1, 1, 1])]))
    cfg.dump(tmp_path / 'config.py')
    with caplog.at_level(logging.WARNING):
        new = load_and_swap(str(tmp_path / 'config.py'), 'xtiny')
    assert new.data_preprocessor == dict(num_classes=5)
    assert list_notes(new)[0].startswith('train_dataloader: Normalize in the pipeline stays')


def test_grey_images_stay_grey():
    cfg = small_config(backbone=dict(type='ResNet', depth=18, in_channels=1, out_indices=(3,)))
    cfg.data_preprocessor.update(mean=[33.46], std=[78.87])
    new = swap_backbone(cfg, 'xtiny')
    assert new.model.backbone.in_channels == 1
    assert new.data_preprocessor.mean == [33.46]
    assert 'mean [33.46] and std [78.87] stay' in list_notes(new)[0]


def test_an_optimizer_that_scopevit_is_not_trained_with_is_named_with_the_settings_that_replace_it(tmp_path):
    cfg = small_config()
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    (note,) = list_notes(cfg)
    assert note.startswith('optim_wrapper.optimizer: SGD stays')
    (options,) = re.findall(r'--cfg-options (.+?),', note)
    cfg.dump(tmp_path / 'config.py')
    changed = load_config(str(tmp_path / 'config.py'), parse_pairs(options.replace('RATE', '1e-4').split()))
    assert changed.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    assert list_notes(changed) == []
