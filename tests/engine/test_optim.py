"""Layer-wise learning-rate decay in every toolbox; steps of many groups."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from helpers import ROOT
from scopevit.engine.optim import step_as_few_groups
from scopevit.engine.runner import QuietRunner
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


def many_groups(kind, **options):
    """An optimizer with a group for each of six parameters, of two weight decays, and another learning rate for one."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(3, generator=generator)) for _ in range(6)]
    groups = [dict(params=[p], weight_decay=0.1 * (i % 2), decay_mult=i % 2) for i, p in enumerate(params)]
    groups[5]['lr'] = 0.5
    return params, kind(groups, lr=0.01, **options)


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (torch.optim.AdamW, dict(fused=True)),
        (torch.optim.AdamW, dict(betas=[0.8, 0.9])),
        (torch.optim.Adam, dict(foreach=True)),
        (torch.optim.SGD, dict(momentum=0.9, nesterov=True)),
        (torch.optim.SGD, dict(momentum=0.9, fused=True)),
    ],
)
def test_groups_of_equal_settings_step_as_one(kind, options):
    (plain, apart), (params, joined) = many_groups(kind, **options), many_groups(kind, **options)
    step_as_few_groups(joined)
    sizes = []
    joined.register_step_pre_hook(lambda *_: sizes.append([len(group['params']) for group in joined.param_groups]))
    groups = joined.param_groups
    for step in range(4):
        for p, q in zip(plain, params):
            p.grad = q.grad = torch.full_like(p, step - 1.3)
        for optimizer in (apart, joined):
            optimizer.step()
            for group in optimizer.param_groups:  # as a scheduler does
                group['lr'] *= 0.9
            if step == 1:
                optimizer.param_groups[0]['lr'] = 0.3
            if step == 2:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert sizes == [[3, 2, 1]] * 2 + [[1, 2, 2, 1]] * 2
    assert len(joined.param_groups) == len(groups) == 6
    for p, q in zip(plain, params):
        torch.testing.assert_close(q, p, rtol=0, atol=0)
    assert [{**group, 'params': 0} for group in joined.param_groups] == [
        {**group, 'params': 0} for group in apart.param_groups
    ]
    before, now = apart.state_dict()['state'], joined.state_dict()['state']
    assert set(before) == set(now)
    for index, state in before.items():
        torch.testing.assert_close(now[index], state, rtol=0, atol=0)


def test_groups_stay_when_the_optimizer_is_met_again_and_when_a_step_fails():
    """MMEngine builds its wrapper again at each resume; a step may run out of memory."""
    params, optimizer = many_groups(torch.optim.SGD)
    step_as_few_groups(optimizer)
    step_as_few_groups(optimizer)
    for p in params:
        p.grad = torch.ones_like(p)

    def fail():
        raise MemoryError

    for _ in range(2):
        optimizer.step()
        assert len(optimizer.param_groups) == 6
        with pytest.raises(MemoryError):
            optimizer.step(fail)
        state = optimizer.state_dict()
        assert len(state['param_groups']) == 6
        with pytest.raises(MemoryError):
            optimizer.step(fail)
        optimizer.load_state_dict(state)


def test_fused_steps_take_a_parameter_that_joins_later():
    (plain, apart), (params, joined) = (many_groups(torch.optim.SGD, momentum=0.9, fused=True) for _ in range(2))
    step_as_few_groups(joined)
    for step in range(3):
        for p, q in list(zip(plain, params))[step == 0 :]:
            p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        apart.step()
        joined.step()
    for p, q in zip(plain, params):
        torch.testing.assert_close(q, p, rtol=0, atol=0)


def test_an_optimizer_that_measures_its_groups_steps_as_it_is():
    """Others may keep results of a whole group in it."""
    _, optimizer = many_groups(type('Own', (torch.optim.SGD,), {}))
    step_as_few_groups(optimizer)
    assert not optimizer._optimizer_step_pre_hooks


def test_a_training_steps_as_few_groups():
    runner = QuietRunner.__new__(QuietRunner)
    runner.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    wrapper = runner.build_optim_wrapper(
        dict(optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1), paramwise_cfg=dict(norm_decay_mult=0.0))
    )
    seen = []
    wrapper.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(len(optimizer.param_groups)))
    assert runner.build_optim_wrapper(wrapper) is wrapper  # as a resume does
    wrapper.update_params(runner.model(torch.rand(4, 2)).sum())
    assert (len(wrapper.optimizer.param_groups), seen) == (6, [2])
