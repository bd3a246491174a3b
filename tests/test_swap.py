"""Swapping the backbone into configs of all toolboxes: what follows it fits, and the rest stays."""

import pytest
import torch
from mmengine.config import Config

from scopevit.engine.errors import UserError
from scopevit.engine.launch import load_config
from scopevit.models import LevelAdapter, ScopeViT
from scopevit.swap import SwapError, list_changes, load_and_swap, swap_backbone
from scopevit.swap.core import try_model
from scopevit.swap.probe import Level, in_scope, probe_backbone
from scopevit.swap.trial import parse_losses, runnable, trial_batch

TINY = [32, 64, 128, 256]
# One config for each kind of neck and head, with the settings that must have changed.
CASES = {
    # FPN, which takes four levels and starts at the second
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': {'model.neck.in_channels': TINY},
    # A transformer on three levels, whose backbone learns at a rate of its own
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': {
        'model.backbone.out_indices': (1, 2, 3),
        'model.neck.in_channels': TINY[1:],
    },
    # A path aggregation neck with levels in reverse
    'mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py': {'model.neck.in_channels': TINY[:0:-1]},
    # No neck, and a shared head with fixed channels at stride 16
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py': {
        'model.neck.type': 'scopevit.LevelAdapter',
        'model.neck.out_strides': [16],
        'model.rpn_head.anchor_generator.strides': [16],
        'model.data_preprocessor.mean': [123.675, 116.28, 103.53],
    },
    # An auxiliary head, and resolution kept by dilation
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py': {
        'model.decode_head.in_channels': 256,
        'model.auxiliary_head.in_channels': 128,
        'model.auxiliary_head.in_index': 2,
    },
    # Low-level features of their own, beside the auxiliary head
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py': {
        'model.decode_head.c1_in_channels': 32,
        'model.decode_head.in_channels': 256,
    },
    'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py': {'model.decode_head.in_channels': TINY},
    # Levels of strides 1 and 2, of which only two are read
    'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py': {
        'model.neck.type': 'scopevit.LevelAdapter',
        'model.decode_head.in_index': 1,
        'model.auxiliary_head.in_index': 0,
    },
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py': {
        'model.head.in_channels': 256
    },
    # One map of stride 4
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py': {
        'model.neck.out_strides': [4],
        'model.head.in_channels': 32,
    },
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': {'model.head.in_channels': 256},
    # Vectors, not maps
    'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py': {
        'model.neck.type': 'mmpretrain.GlobalAveragePooling',
        'model.head.in_channels': 256,
    },
}


def setting(cfg, key):
    for part in key.split('.'):
        cfg = cfg[part]
    return cfg


@pytest.fixture(scope='module')
def load():
    """Configs by name, loaded once; nobody changes them."""
    loaded = {}

    def load(name):
        if name not in loaded:
            loaded[name] = load_config(name)
        return loaded[name]

    return load


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES, ids=lambda name: name.split('/')[-1][:-3])
def test_swapped_config_trains_and_the_rest_stays(name, load):
    cfg = load(name)
    text = cfg.pretty_text if name.startswith('mmpose') else repr(cfg.to_dict())
    new = swap_backbone(cfg, 'tiny')
    assert (cfg.pretty_text if name.startswith('mmpose') else repr(cfg.to_dict())) == text  # the caller's is unchanged

    assert (new.model.backbone.type, new.model.backbone.arch) == ('scopevit.ScopeViT', 'tiny')
    for key, value in CASES[name].items():
        assert setting(new, key) == value, key
    assert new.model.get('pretrained') is None
    assert 'torchvision://' not in repr(new.model)
    # Nothing else changed: data, schedule, evaluation.
    changed = {line.split(':')[0].split('.')[0] for line in list_changes(cfg, new)}
    assert changed <= {'model', 'optim_wrapper', 'data_preprocessor', 'custom_imports'}

    model, size = try_model(new)
    assert isinstance(model.backbone, ScopeViT)
    model.train()
    for parameter in model.parameters():  # a head that starts at zero passes no gradient on in its first step
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    with in_scope(new.default_scope):
        loss = parse_losses(model(**trial_batch(new, model, size, training=True), mode='loss'))
    assert loss.isfinite()
    loss.backward()
    assert model.backbone.stages[0].patch_embed[0].weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_strides_are_those_that_anchors_and_roi_extractors_assume(load):
    new = swap_backbone(load('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'))
    backbone = ScopeViT(**{k: v for k, v in new.model.backbone.items() if k != 'type'})
    used = backbone.feature_strides[new.model.neck.start_level :]
    assert list(used) == new.model.bbox_head.anchor_generator.strides[: len(used)]
    assert list(backbone.feature_channels) == new.model.neck.in_channels


def test_probe_learns_channels_and_strides():
    resnet = dict(type='ResNet', depth=18, out_indices=(1, 3), init_cfg=dict(type='Pretrained', checkpoint='none'))
    assert probe_backbone(resnet, 'mmdet', 3) == [Level(128, 8), Level(512, 32)]
    assert probe_backbone({**resnet, 'dilations': (1, 1, 2, 4), 'strides': (1, 2, 1, 1)}, 'mmseg', 3) == [
        Level(128, 8),
        Level(512, 8),
    ]
    vit = dict(type='VisionTransformer', arch='deit-tiny', img_size=96)
    assert probe_backbone(vit, 'mmpretrain', 3) == [Level(192, 0)]


def small_config(**model):
    """A config without data, with whatever model settings are given."""
    backbone = dict(type='ResNet', depth=18, out_indices=(3,))
    head = dict(type='LinearClsHead', num_classes=5, in_channels=512)
    settings = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    preprocessor = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False, num_classes=5)
    return Config(
        dict(default_scope='mmpretrain', model={**settings, **model}, data_preprocessor=preprocessor), cfg_text=' '
    )


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


def test_grey_images_stay_grey():
    cfg = small_config(backbone=dict(type='ResNet', depth=18, in_channels=1, out_indices=(3,)))
    cfg.data_preprocessor.update(mean=[33.46], std=[78.87])
    new = swap_backbone(cfg, 'xtiny')
    assert new.model.backbone.in_channels == 1
    assert new.data_preprocessor.mean == [33.46]


def test_what_cannot_be_mended_is_named_with_its_key():
    with pytest.raises(SwapError, match='model: PoseLifter has no backbone'):
        swap_backbone(Config(dict(model=dict(type='PoseLifter')), cfg_text=' '))
    with pytest.raises(SwapError, match='model: this config has none'):
        swap_backbone(Config(dict(data=1), cfg_text=' '))
    with pytest.raises(SwapError, match="arch: unknown 'huge'; choose one of xtiny, tiny, small"):
        swap_backbone(small_config(), 'huge')
    with pytest.raises(SwapError, match='model.backbone: it cannot be built here: .*NoSuchNet'):
        swap_backbone(small_config(backbone=dict(type='NoSuchNet')))
    tokens = dict(type='VisionTransformer', arch='deit-tiny', img_size=64, out_type='raw')
    with pytest.raises(SwapError, match='model.backbone: it hands on tokens, not maps') as caught:
        swap_backbone(small_config(backbone=tokens))
    assert caught.value.problems[0][0] == 'model.backbone'
    assert isinstance(caught.value, UserError)
    # The reason of each way that was tried.
    with pytest.raises(SwapError, match='(?s)rewriting channels: .*with a LevelAdapter: '):
        swap_backbone(small_config(head=dict(type='NoSuchHead')))


def test_options_of_the_backbone_are_for_scopevit(tmp_path):
    path = tmp_path / 'config.py'
    small_config().dump(path)
    options = {'model.backbone.drop_path_rate': 0.1, 'model.head.num_classes': 7, 'data_preprocessor.num_classes': 7}
    new = load_and_swap(str(path), 'xtiny', options)
    assert new.model.backbone == dict(type='scopevit.ScopeViT', arch='xtiny', out_indices=(3,), drop_path_rate=0.1)
    assert new.model.head.num_classes == 7


def test_adapter_makes_the_maps_it_says():
    features = ScopeViT('xtiny', out_indices=(0, 1, 2, 3)).eval()(torch.rand(1, 3, 70, 100))
    adapter = LevelAdapter(TINY, out_channels=[5, 6, 7, 8], out_strides=[1, 8, 16, 64], first_stages=[0, 1, 0, 3])
    shapes = [tuple(x.shape[1:]) for x in adapter(features)]
    assert shapes == [(5, 72, 100), (6, 9, 13), (7, 5, 7), (8, 2, 2)]
    assert sum(x.mean() for x in adapter(features)).backward() is None
    assert all(parameter.grad is not None for parameter in adapter.parameters())
    with pytest.raises(ValueError, match='must be equally long'):
        LevelAdapter(TINY, out_channels=[5], out_strides=[4, 8], first_stages=[0])


@pytest.mark.slow
def test_detector_within_a_method_is_found(load):
    cfg = load('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    new = swap_backbone(cfg)
    assert new.model.detector.backbone.type == 'scopevit.ScopeViT'
    assert new.model.detector.neck.in_channels == TINY
    model, _ = try_model(new)
    assert isinstance(runnable(new, model)[1].backbone, ScopeViT)
