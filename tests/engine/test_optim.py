"""Layer-wise learning-rate decay in every toolbox."""

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from helpers import ROOT
from scopevit.utils.errors import UserError

CONFIGS = [
    'classification/scopevit-xtiny_8xb128-300e_in1k-256px.py',
    'detection/mask-rcnn_scopevit-xtiny_fpn_1x_coco.py',
    'detection/retinanet_scopevit-xtiny_fpn_1x_coco.py',
    'segmentation/scopevit-xtiny_upernet_8xb2-160k_ade20k-512x512.py',
    'segmentation/scopevit-xtiny_upernet_8xb2-160k_ade20k-512x512.py',
    'pose/td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py',
]


def build(config, **paramwise):
    cfg = Config.fromfile(ROOT / 'configs' / config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    cfg.optim_wrapper.constructor = 'scopevit.LayerDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg = dict(cfg.optim_wrapper.get('paramwise_cfg') or {}, **paramwise)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {id(group['params'][0]): group for group in wrapper.param_groups if group['params']}
    named = {name: groups[id(p)] for name, p in model.named_parameters() if id(p) in groups}
    return model, cfg.optim_wrapper.optimizer.lr, named


@pytest.mark.parametrize('config', CONFIGS)
def test_rates_fall_towards_the_image(config):
    model, lr, groups = build(config, layer_decay_rate=0.5)
    assert set(groups) == {name for name, p in model.named_parameters() if p.requires_grad}
    blocks = sum(model.backbone.depths)
    for name, group in groups.items():
        if not name.startswith('backbone.'):
            assert group['lr'] == pytest.approx(lr), name
        elif name.startswith('backbone.stages.0.patch_embed.'):
            assert group['lr'] == pytest.approx(lr * 0.5 ** (blocks + 1)), name
        elif name.startswith('backbone.stages.0.blocks.0.'):
            assert group['lr'] == pytest.approx(lr * 0.5**blocks), name
    assert groups[f'backbone.stages.{len(model.backbone.stages) - 1}.norm.weight']['lr'] == pytest.approx(lr * 0.5)
    decay = groups['backbone.stages.0.blocks.0.mssa.norm1.weight'].get('weight_decay', 0)
    assert decay == 0  # the other options still hold


def test_other_multipliers_still_count():
    _, lr, groups = build(CONFIGS[1], layer_decay_rate=0.5, custom_keys={'rpn_head': dict(lr_mult=0.1)})
    rpn = next(group for name, group in groups.items() if name.startswith('rpn_head'))
    assert rpn['lr'] == pytest.approx(lr * 0.1)


def test_an_optimizer_without_a_rate_is_named():
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD'),
        constructor='scopevit.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    with pytest.raises(UserError, match='set optim_wrapper.optimizer.lr'):
        build_optim_wrapper(nn.Linear(2, 2), wrapper)
    wrapper['optimizer']['lr'] = 0.1
    with pytest.raises(UserError, match='Linear has no backbone'):
        build_optim_wrapper(nn.Linear(2, 2), wrapper)


@pytest.mark.parametrize('rate', [None, 0, 1.5])
def test_wrong_rates_are_named(rate):
    with pytest.raises(UserError, match='layer_decay_rate must be above 0 and at most 1'):
        build(CONFIGS[0], layer_decay_rate=rate)
