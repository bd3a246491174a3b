"""Configs of the rows and of the pyramids' dense tasks, and the command that makes the table.

Rows of timm and transformers, which the tests do without, are built by make_table.py and trained
by the sweep that the README names.
"""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from helpers import fails_cleanly, tool_here
from projects.imagenet_table.models import EViTKeepRateHook
from projects.imagenet_table.rows import PROJECT, ROOT, ROWS

HERE = [row for row in ROWS if row.source.startswith(('here', 'mmpretrain'))]
DENSE = sorted(path for path in (PROJECT / 'configs').glob('*.py') if 'in1k' not in path.stem)
STAGE_CHANNELS = dict(p2t=[48, 96, 240, 384], shunted=[64, 128, 256, 512], mpvit=[128, 192, 256, 256])
OURS = Config.fromfile(ROOT / ROWS[-1].config)


def steps(dataloader):
    return {step['type']: step for step in dataloader.dataset.pipeline}


def test_every_row_has_a_config_and_every_config_a_row():
    configs = {path.relative_to(ROOT).as_posix() for path in (PROJECT / 'configs').glob('*in1k*.py')}
    assert configs | {ROWS[-1].config} == {row.config for row in ROWS}
    assert len(ROWS) == 12


@pytest.mark.parametrize('row', ROWS[:-1], ids=lambda row: row.name)
def test_recipe_is_that_of_scopevit_at_the_size_of_the_row(row):
    cfg = row.load()
    for key in ('optim_wrapper', 'train_dataloader', 'test_dataloader'):
        own, ours = cfg[key].to_dict(), OURS[key].to_dict()
        own.pop('dataset', None), ours.pop('dataset', None)
        own.pop('paramwise_cfg', None), ours.pop('paramwise_cfg', None)
        assert own == ours
    ours, own = (cfg.optim_wrapper.paramwise_cfg for cfg in (OURS, cfg))
    assert all(own[key] == ours[key] for key in ours if key != 'custom_keys')
    assert (cfg.param_scheduler, cfg.train_cfg) == (OURS.param_scheduler, OURS.train_cfg)
    assert cfg.model.train_cfg == OURS.model.train_cfg
    assert (cfg.model.get('loss') or cfg.model.head.loss) == OURS.model.head.loss
    assert 'SyncBuffersHook' in [hook.type for hook in cfg.custom_hooks]
    train = steps(cfg.train_dataloader)
    assert train.keys() == steps(OURS.train_dataloader).keys()
    assert train['RandomResizedCrop'].scale == row.size
    for test in map(steps, (cfg.val_dataloader, cfg.test_dataloader)):
        assert test['CenterCrop'].crop_size == row.size
        assert row.size / test['ResizeEdge'].scale == pytest.approx(0.9, abs=2e-3)


@pytest.mark.parametrize('row', HERE, ids=lambda row: row.name)
def test_a_training_step(row):
    """Forward, losses, backward and update on random images of the row's own size."""
    torch.manual_seed(0)
    cfg = row.load()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        from mmpretrain.structures import DataSample

        settings = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
        model = MODELS.build(settings)
        model.init_weights()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        images = list(torch.randint(0, 256, (2, 3, row.size, row.size), dtype=torch.uint8))
        samples = [DataSample().set_gt_label(label) for label in (3, 7)]
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        losses = model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    assert losses['loss'].isfinite()
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    # The bias of a key does not change a softmax; it may move by rounding alone.
    assert not [name for name in still if not re.search('(qkv|kv|k).bias', name)]
    decays = {id(p): group['weight_decay'] for group in wrapper.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        free = parameter.ndim == 1 or re.search('cls_token|pos_embed|bias_table', name)
        assert decays[id(parameter)] == (0 if free else 0.05), name


def test_keep_rate_of_evit_falls_between_epochs_10_and_100():
    (row,) = [row for row in ROWS if row.name == 'EViT-S']
    cfg = row.load()
    (hook,) = [dict(hook) for hook in cfg.custom_hooks if hook.pop('type') == EViTKeepRateHook.__name__]
    hook = EViTKeepRateHook(**{key: value for key, value in hook.items() if key != 'type'})
    assert (hook.begin * cfg.train_cfg.max_epochs, hook.end * cfg.train_cfg.max_epochs) == pytest.approx((10, 100))


@pytest.mark.parametrize('path', DENSE, ids=lambda path: path.stem)
def test_dense_config_builds_and_channels_agree(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    channels = next(channels for name, channels in STAGE_CHANNELS.items() if name in path.stem)
    assert list(model.backbone.feature_channels) == channels
    if cfg.default_scope == 'mmdet':
        assert cfg.model.neck.in_channels == channels
        assert cfg.model.rpn_head.anchor_generator.strides[:4] == list(model.backbone.feature_strides)
    else:
        assert cfg.model.decode_head.in_channels == channels
        assert cfg.model.auxiliary_head.in_channels == channels[cfg.model.auxiliary_head.in_index]


# The command

MAKE_TABLE = ROOT / 'projects' / 'imagenet_table' / 'make_table.py'


def test_make_table_counts_and_explains():
    result = tool_here(MAKE_TABLE, '--rows', 'ScopeViT-T', 'EViT-S')
    (scopevit,) = [line for line in result.stdout.splitlines() if line.startswith('| ScopeViT-T')]
    assert '8,006,716' in scopevit
    assert '1.955' in scopevit
    assert '7,749,716 parameters, in units of 2^20 (7.39)' in result.stdout
    (evit,) = [line for line in result.stdout.splitlines() if line.startswith('| EViT-S')]
    assert '22,073,704' in evit
    assert 'wrote' not in result.stdout


def test_make_table_refuses_unknown_rows():
    fails_cleanly(tool_here(MAKE_TABLE, '--rows', 'ResNet-50'), 'no row is called ResNet-50', 'DeiT-S')
