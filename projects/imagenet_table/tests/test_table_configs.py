"""Configs of the rows and of the pyramids' dense tasks, and the command that makes the table.

Rows of timm and transformers, which the tests do without, are built by make_table.py and trained
by the sweep that the README names.
"""

import json
import re
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from helpers import fails_cleanly, tool_here
from projects.imagenet_table import make_table
from projects.imagenet_table.make_table import TOLERANCE, measure
from projects.imagenet_table.models import EViTKeepRateHook
from projects.imagenet_table.rows import PROJECT, ROOT, ROWS
from scopevit.utils.errors import UserError

HERE = [row for row in ROWS if row.library in ('here', 'mmpretrain')]
DENSE = sorted(path for path in (PROJECT / 'configs').glob('*.py') if 'in1k' not in path.stem)
STAGE_CHANNELS = dict(p2t=[48, 96, 240, 384], shunted=[64, 128, 256, 512], mpvit=[128, 192, 256, 256])
OURS = Config.fromfile(ROOT / ROWS[-1].config)


def steps(dataloader):
    return {step['type'].removeprefix('scopevit.'): step for step in dataloader.dataset.pipeline}


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
    (settings,) = [dict(hook) for hook in cfg.custom_hooks if hook.type == EViTKeepRateHook.__name__]
    del settings['type']
    hook = EViTKeepRateHook(**settings)
    assert (hook.begin * cfg.train_cfg.max_epochs, hook.end * cfg.train_cfg.max_epochs) == pytest.approx((10, 100))


def test_evit_begins_as_deit():
    """Weights of the same spread, or a comparison of the two compares their beginnings."""
    torch.manual_seed(0)
    models = []
    for name, arch in (
        ('DeiT-S', dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)),
        ('EViT-S', dict(embed_dims=96, depth=4, num_heads=3, mlp_ratio=4)),
    ):
        (row,) = [row for row in ROWS if row.name == name]
        model = row.load().model
        model.backbone.update(arch=arch, img_size=256)
        model.head.in_channels = 96
        if name == 'EViT-S':
            model.backbone.reorganise_at = (1,)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            models.append(MODELS.build(model))
        models[-1].init_weights()
    deit, evit = models
    pairs = [
        (deit.backbone.patch_embed.projection, evit.backbone.patch_embed),
        (deit.head.fc, evit.head.fc),
    ]
    for ours, theirs in zip(evit.backbone.blocks, deit.backbone.layers):
        pairs += [(theirs.attn.qkv, ours.attn.qkv), (theirs.attn.proj, ours.attn.proj)]
        pairs += [(theirs.ffn.layers[0][0], ours.mlp.fc1), (theirs.ffn.layers[1], ours.mlp.fc2)]
    for theirs, ours in pairs:
        assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.1)
        assert ours.bias.std().item() == pytest.approx(theirs.bias.std().item(), rel=0.4)
    assert evit.backbone.pos_embed.std().item() == pytest.approx(deit.backbone.pos_embed.std().item(), rel=0.1)
    assert torch.equal(evit.backbone.cls_token, deit.backbone.cls_token)


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


@pytest.mark.parametrize('row', [row for row in HERE if row.library == 'mmpretrain'], ids=lambda row: row.name)
def test_counts_of_mmpretrain_rows(row):
    facts = measure(row)
    assert facts['parameters']['measured'] == row.counted_parameters
    assert facts['macs']['measured'] == row.counted_macs


def test_counts_and_explanations_are_enforced(monkeypatch):
    (row,) = [row for row in ROWS if row.name == 'P2T-T']
    counted = make_table._count(row, {})
    monkeypatch.setattr(make_table, '_count', lambda row, options: counted)
    for changed, words in (
        (dict(counted_parameters=11_590_841), 'it should have 11,590,841'),
        (dict(counted_macs=int(1.002 * row.counted_macs)), 'MACs, but it should have'),
        (dict(macs=1.7), r'macs are not the 1.7 of the table, rounded, and rows.py has no explanation'),
        (dict(why_parameters='anything'), 'parameters are the 11.6 of the table, rounded, and rows.py has an'),
    ):
        with pytest.raises(UserError, match=words):
            measure(replace(row, **changed))


def test_table_in_the_repository_is_that_of_the_rows():
    written = json.loads((PROJECT / 'table.json').read_text())['rows']
    assert [facts['name'] for facts in written] == [row.name for row in ROWS]
    for row, facts in zip(ROWS, written):
        assert facts['parameters']['measured'] == row.counted_parameters
        assert facts['macs']['measured'] == pytest.approx(row.counted_macs, rel=TOLERANCE)
        assert (facts['parameters']['table'], facts['macs']['table']) == (row.parameters, row.macs)
    by_name = {facts['name']: facts for facts in written}
    assert by_name['ScopeViT-T']['parameters']['without_left_out'] == 7_749_716
    assert by_name['CrossViT-S']['parameters']['without_left_out'] == 26_703_056
    assert by_name['EViT-S']['macs']['other_mode']['measured'] == 3_466_089_216


def test_make_table_counts_and_explains():
    result = tool_here(MAKE_TABLE, '--rows', 'ScopeViT-T', 'EViT-S')
    (scopevit,) = [line for line in result.stdout.splitlines() if line.startswith('| ScopeViT-T')]
    assert '8,006,716' in scopevit
    assert '1.955' in scopevit
    assert '7,749,716 parameters, in units of 2^20 (7.39)' in result.stdout
    (evit,) = [line for line in result.stdout.splitlines() if line.startswith('| EViT-S')]
    assert '22,073,704' in evit
    assert '3,466,089,216 with tokens dropped, not fused, 3,487,651,584 else' in result.stdout
    assert 'wrote' not in result.stdout


def test_make_table_refuses_unknown_rows():
    fails_cleanly(tool_here(MAKE_TABLE, '--rows', 'ResNet-50'), 'no row is called ResNet-50', 'DeiT-S')


def test_make_table_refuses_speed_options_without_speed():
    fails_cleanly(tool_here(MAKE_TABLE, '--train', '--batch-size', 4), '--train, --batch-size must come with --speed')


def test_make_table_refuses_what_cannot_be_measured_before_it_counts():
    fails_cleanly(tool_here(MAKE_TABLE, '--speed', '--rounds', 0), '--rounds: must be at least 1')
    words = ('--rows', 'P2T-T', '--speed', '--device', 'nowhere')
    fails_cleanly(tool_here(MAKE_TABLE, *words), '--device nowhere cannot be used here')
