"""Models of configs as plain networks, their usual sizes and their form for deployment."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from helpers import ROOT
from scopevit.apis.model import Network, build_model, image_channels, image_size, switch_to_deploy
from scopevit.swap.trial import small_model
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        ('configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py', (256, 256)),
        ('configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py', (800, 1344)),
        ('configs/segmentation/scopevit-tiny_fpn_8xb4-80k_ade20k-512x512.py', (512, 512)),
        ('configs/pose/td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py', (256, 192)),
        ('mmpretrain::deit/deit-small_4xb256_in1k.py', (224, 224)),
        ('mmdet::ssd/ssd300_coco.py', (300, 300)),
        ('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', (512, 1024)),
        ('mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py', None),
    ],
)
def test_usual_sizes(config, size):
    path = config if '::' in config else str(ROOT / config)
    assert image_size(load_config(path)) == size


@pytest.mark.parametrize(
    ('config', 'size', 'shape'),
    [
        ('configs/classification/scopevit-xtiny_8xb128-300e_in1k-256px.py', (40, 56), (2, 1000)),
        ('configs/pose/td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py', (64, 32), (2, 17, 16, 8)),
        ('configs/segmentation/scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512.py', (64, 96), (2, 150, 16, 24)),
    ],
)
def test_networks_of_configs(config, size, shape):
    network = Network(build_model(load_config(str(ROOT / config)))).eval()
    assert image_channels(network) == 3
    with torch.no_grad():
        assert network(torch.rand(2, 3, *size)).shape == shape


def test_deploy_form():
    settings = dict(type='RepVGG', arch='A0', out_indices=(3,))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = nn.Sequential(MODELS.build(settings)).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = model(image)[0]
        after = switch_to_deploy(model)(image)[0]
    assert model[0].deploy
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match='Conv2d has no part with a switch_to_deploy method'):
        switch_to_deploy(nn.Conv2d(3, 4, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'mmdet::fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py',  # takes proposals
        'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',  # wants labels, which it ignores
        'mmdet::mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2021.py',  # takes clips
        'mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',  # refines points
        'mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',  # classifies masks
    ],
)
def test_networks_of_unusual_models(name):
    cfg = load_config(name)
    network = Network(build_model(Config(dict(default_scope=cfg.default_scope, model=small_model(cfg)))))
    for name, parameter in network.named_parameters():
        if 'init_proposal_bboxes' in name:  # at random they are inside out, which a compiled mmcv refuses on CPUs
            nn.init.constant_(parameter, 0.5)
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 96, 96)) is not None
