"""Channels that do not fit are named with the remedy; sound models pass unchanged."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed

from helpers import ROOT
from scopevit.checks.channels import check_channels

CONFIGS = ROOT / 'configs'
MASK_RCNN = '../projects/scenes/configs/mask-rcnn_scopevit-xtiny_fpn_2xb4-1e_scenes'
RETINANET = '../projects/scenes/configs/retinanet_scopevit-xtiny_fpn_2xb4-1e_scenes'
UPERNET = '../projects/scenes/configs/scopevit-xtiny_upernet_2xb4-3e_scenes-128x128'
WITH_AUXILIARY_HEAD = 'segmentation/scopevit-xtiny_upernet_8xb2-160k_ade20k-512x512'
SEMANTIC_FPN = '../projects/scenes/configs/scopevit-xtiny_fpn_2xb4-4e_scenes-128x128'
POSE = '../projects/scenes/configs/td-hm_scopevit-xtiny_2xb16-6e_scenes-128x96'
CLASSIFIER = 'classification/scopevit-xtiny_8xb128-300e_in1k-256px'


def build(name, **options):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', [MASK_RCNN, RETINANET, UPERNET, SEMANTIC_FPN, POSE, CLASSIFIER])
def test_sound_models_pass_unchanged(name):
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    set_random_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1)
    set_random_seed(0)
    model.train()
    assert list(check_channels(model)) == []
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


SMALL = {'model.backbone.arch': 'small'}
MISMATCHES = [
    (MASK_RCNN, SMALL, ['model.neck.in_channels is [32, 64, 128, 256]', 'ScopeViT', '=[64, 128, 256, 512]']),
    (MASK_RCNN, {'model.backbone.out_indices': (1, 2, 3)}, ['3 maps of [64, 128, 256]', '=[64, 128, 256]']),
    (MASK_RCNN, {'model.rpn_head.in_channels': 32}, ['model.rpn_head.in_channels is 32', 'neck FPN', '=64']),
    (MASK_RCNN, {'model.roi_head.bbox_head.in_channels': 32}, ['roi_head.bbox_head.in_channels is 32', '=64']),
    (MASK_RCNN, {'model.roi_head.mask_head.in_channels': 32}, ['roi_head.mask_head.in_channels is 32', '=64']),
    (MASK_RCNN, {'model.roi_head.mask_roi_extractor.out_channels': 32}, ['mask_roi_extractor.out_channels is 32']),
    (RETINANET, {'model.bbox_head.in_channels': 32}, ['model.bbox_head.in_channels is 32', '=64']),
    (UPERNET, SMALL, ['model.decode_head.in_channels is [32, 64, 128, 256]', '=[64, 128, 256, 512]']),
    (WITH_AUXILIARY_HEAD, {'model.auxiliary_head.in_channels': 64}, ['auxiliary_head.in_channels is 64', '=128']),
    (WITH_AUXILIARY_HEAD, {'model.auxiliary_head.in_index': 4}, ['model.auxiliary_head.in_index, now 4']),
    (SEMANTIC_FPN, {'model.decode_head.in_channels': [32] * 4}, ['model.decode_head.in_channels is [32, 32', '=[64, ']),
    (POSE, SMALL, ['model.head.in_channels is 256', 'outputs 512 channels', 'model.head.in_channels=512']),
    (CLASSIFIER, SMALL, ['model.head.in_channels is 256', 'model.head.in_channels=512']),
]


@pytest.mark.parametrize(('name', 'options', 'says'), MISMATCHES)
def test_mismatch_is_named_with_the_remedy(name, options, says):
    text = '\n'.join(map(str, check_channels(build(name, **options))))
    for words in says:
        assert words in text


def test_model_in_a_wrapper_for_several_processes(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        assert list(check_channels(MMDistributedDataParallel(build(POSE)))) == []
        (found,) = check_channels(MMDistributedDataParallel(build(POSE, **SMALL)))
        assert 'model.head.in_channels is 256' in found.text
    finally:
        torch.distributed.destroy_process_group()


class Twice(torch.nn.Module):
    """Hands the neck the backbone's map twice; or text, which nobody could make up."""

    def __init__(self, needs_text):
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 8, 3)
        self.neck = torch.nn.Conv2d(16, 8, 1)
        self.needs_text = needs_text

    def extract_feat(self, image):
        if self.needs_text:
            raise KeyError('text')
        return self.neck(torch.cat([self.backbone(image)] * 2, 1))


class Flat(torch.nn.Module):
    """Its head takes as many numbers as images of one size, 64 pixels, give."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 8, 32, stride=32)
        self.neck = torch.nn.Flatten()
        self.head = torch.nn.Sequential(torch.nn.Linear(32, 5))
        self.head[0].in_channels = 32

    def extract_feat(self, image):
        return (self.neck(self.backbone(image)),)


class Uncopyable(Twice):
    def __deepcopy__(self, memo):
        raise TypeError


def test_models_that_cannot_be_tried_pass():
    for model in (Twice(False), Twice(True), Uncopyable(False), Flat(), torch.nn.Linear(2, 2)):
        assert list(check_channels(model)) == []
    # Declared channels that the neck does not go by are nobody's business.
    model = build(SEMANTIC_FPN)
    model.neck.in_channels = [1, 2, 3, 4]
    model.decode_head.in_channels = 7
    assert list(check_channels(model)) == []
