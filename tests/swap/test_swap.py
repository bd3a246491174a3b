"""Swapping the backbone into configs of all toolboxes: what follows it fits, and the rest stays."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import get_priority

from helpers import COMPILED_MMCV, load_tool, small_config
from scopevit.apis.model import in_scope, runnable
from scopevit.checks.channels import check_channels
from scopevit.engine.hooks import PretrainedBackboneHook
from scopevit.models import ScopeViT
from scopevit.models.ops import MissingOperator
from scopevit.swap import SwapError, list_changes, load_and_swap, swap_backbone, toolbox_of
from scopevit.swap.probe import build_uninitialised
from scopevit.swap.trial import try_model
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

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
    # A cascade, whose second head refines single points
    'mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py': {'model.neck.in_channels': TINY},
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
        batch = load_tool('../projects/zoo_sweep/batches.py').trial_batch(new, model, size, training=True)
        loss = model.parse_losses(model(**batch, mode='loss'))[0]
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


def test_a_backbone_without_a_head_has_the_outputs_of_the_old_one():
    """mmpretrain's feature extractors, whose configs name no toolbox."""
    vit = dict(type='VisionTransformer', arch='deit-tiny', img_size=64, patch_size=16)
    cfg = small_config(backbone=vit, neck=None, head=None)
    cfg.pop('default_scope')
    new = swap_backbone(cfg, 'xtiny', scope=toolbox_of('mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'))
    assert new.default_scope == 'mmpretrain'
    model, _ = try_model(new)
    assert [x.shape for x in model(torch.rand(1, 3, 64, 64))] == [(1, 256)]
    with pytest.raises(SwapError, match='default_scope: names no toolbox'):
        swap_backbone(cfg, 'xtiny')


def test_what_cannot_be_adapted_is_named_with_its_key():
    with pytest.raises(SwapError, match='model: PoseLifter has no backbone'):
        swap_backbone(Config(dict(model=dict(type='PoseLifter')), cfg_text=' '))
    with pytest.raises(SwapError, match='model: this config has none'):
        swap_backbone(Config(dict(data=1), cfg_text=' '))
    with pytest.raises(SwapError, match="arch: unknown 'huge'; choose one of xtiny, tiny, small"):
        swap_backbone(small_config(), 'huge')
    with pytest.raises(SwapError, match='model.backbone: it cannot be built here: .*NoSuchNet'):
        swap_backbone(small_config(backbone=dict(type='NoSuchNet')))
    tokens = dict(type='VisionTransformer', arch='deit-tiny', img_size=64, out_type='raw')
    with pytest.raises(SwapError, match='model.backbone: its outputs are tokens, not maps') as caught:
        swap_backbone(small_config(backbone=tokens))
    assert caught.value.problems[0][0] == 'model.backbone'
    assert isinstance(caught.value, UserError)
    # The reason of each way that was tried, and the part that fails: where it is built, and where it runs.
    for head in (dict(type='NoSuchHead'), dict(type='LinearClsHead', num_classes=5, in_channels=100)):
        with pytest.raises(SwapError, match='model.head: rewriting channels: .*; model.head: with a LevelAdapter: '):
            swap_backbone(small_config(head=head))
    with pytest.raises(SwapError, match='model.image_encoder: holds the backbone'):
        swap_backbone(Config(dict(model=dict(type='Retriever', image_encoder=[dict(type='ResNet')])), cfg_text=' '))
    with pytest.raises(SwapError, match='model.neck.rfp_backbone: the neck runs a second backbone'):
        swap_backbone(small_config(neck=dict(type='RFP', rfp_backbone=dict(type='ResNet'))))


def test_an_operator_for_gpus_alone_is_named():
    def check(cfg):
        raise RuntimeError('carafe_forward_impl: implementation for device cpu not found.')

    with pytest.raises(SwapError, match='cannot be tried without a GPU: its operator carafe has') as caught:
        swap_backbone(small_config(), 'xtiny', check=check)
    assert len(caught.value.problems) == 1  # no other way would help


def test_an_operator_that_only_a_compiled_mmcv_has_is_named():
    def check(cfg):
        raise MissingOperator('carafe_forward')

    says = r"mmcv's operator carafe_forward needs a compiled mmcv.*scopevit install-mmcv"
    with pytest.raises(SwapError, match=says) as caught:
        swap_backbone(small_config(), 'xtiny', check=check)
    assert len(caught.value.problems) == 1


def test_configs_with_operators_that_are_not_here_are_refused_and_others_work(load):
    refused = 'operator carafe has no implementation for CPUs' if COMPILED_MMCV else 'operator carafe_forward needs'
    if not (COMPILED_MMCV and torch.cuda.is_available()):
        with pytest.raises(SwapError, match=refused):
            swap_backbone(load('mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py'))
    if not COMPILED_MMCV:  # whose masked convolution is for GPUs alone
        new = swap_backbone(load('mmdet::guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py'))
        assert new.model.neck.in_channels == TINY


@pytest.mark.gpu
@pytest.mark.compiled_mmcv
def test_an_operator_for_gpus_alone_is_tried_there(load):
    new = swap_backbone(load('mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py'))
    assert new.model.neck.in_channels == TINY


def test_options_of_the_backbone_are_for_scopevit(tmp_path):
    path = tmp_path / 'config.py'
    small_config().dump(path)
    options = {'model.backbone.drop_path_rate': 0.1, 'model.head.num_classes': 7, 'data_preprocessor.num_classes': 7}
    new = load_and_swap(str(path), 'xtiny', options)
    assert new.model.backbone == dict(type='scopevit.ScopeViT', arch='xtiny', out_indices=(3,), drop_path_rate=0.1)
    assert new.model.head.num_classes == 7


@pytest.mark.slow
def test_detector_within_a_method_is_found(load, tmp_path):
    from mmdet.engine.hooks import MeanTeacherHook

    weights = tmp_path / 'weights.pth'
    cfg = load('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    new = swap_backbone(cfg)
    assert new.model.detector.backbone.type == 'scopevit.ScopeViT'
    assert new.model.detector.neck.in_channels == TINY
    assert new.model.data_preprocessor.data_preprocessor.mean == [123.675, 116.28, 103.53]
    model, _ = try_model(new)
    student = runnable(new, model)[1]
    assert isinstance(student.backbone, ScopeViT)

    # What training does with a backbone serves this one as well: checking the channels,
    assert list(check_channels(model)) == []
    new.model.detector.neck.in_channels = [32, 64, 128, 255]
    (found,) = check_channels(build_uninitialised(new.model, 'mmdet'))
    assert re.search('model.detector.neck.in_channels is .* set model.detector.neck.in_channels=', found.text)
    # rates by layer,
    optim = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=1.0),
        constructor='scopevit.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    rates = {id(group['params'][0]): group['lr'] for group in build_optim_wrapper(model, optim).param_groups}
    stem = student.backbone.stages[0].patch_embed[0].weight
    assert rates[id(stem)] == 0.5 ** (sum(student.backbone.depths) + 1)
    assert rates[id(student.rpn_head.rpn_cls.weight)] == 1
    # and pretrained weights, which come before the teacher becomes a copy of the student.
    torch.save(dict(state_dict={f'backbone.{k}': v + 1 for k, v in student.backbone.state_dict().items()}), weights)
    expected = stem + 1
    hook = PretrainedBackboneHook(str(weights))
    hook.before_train(SimpleNamespace(iter=0, model=model, logger=logging.getLogger('test')))
    assert torch.equal(stem, expected)
    assert get_priority(hook.priority) < get_priority(MeanTeacherHook.priority)
