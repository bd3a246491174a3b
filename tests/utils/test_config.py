"""Configs of every kind load by name; what is wrong with a name or an override is told."""

import argparse

import pytest

from helpers import CONFIGS, TOY
from scopevit.utils import config
from scopevit.utils.arguments import add_arguments
from scopevit.utils.errors import UserError


def test_config_of_a_toolbox_that_is_not_installed(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='mmpose is not installed: scopevit install-mmpose'):
        config.load_config('mmpose::body_2d_keypoint/a.py')
    with pytest.raises(UserError, match='mmseg is not installed: pip install mmsegmentation'):
        config.load_config('mmseg::pspnet/a.py')


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
    ],
)
def test_configs_of_installed_toolboxes_load(name):
    cfg = config.load_config(name, {'model.backbone.depth': 34})
    assert cfg.model.backbone.depth == 34


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('configs/classification/scopevit-tiny_8xb128_in1k.py', 'did you mean .*scopevit-tiny_8xb128'),
        ('nothing/like/it.py', 'check the path'),
        ('configs/detection', 'configs/detection is a folder; name a file in it'),
        ('README.md', 'README.md is not one: the name of a config ends in .py$'),
        ('mmdet::retinanet/no_such.py', 'config mmdet::retinanet/no_such.py does not exist$'),
        (
            'mmdet::retinanet/retinanet_r50_fpn_1x_cocoo.py',
            r'does not exist; did you mean mmdet::retinanet/retinanet_r50_fpn_1x_coco\.py',
        ),
        ('scopevit::detection/no.py', 'config scopevit::detection/no.py does not exist'),
        ('nosuch::a/b.py', 'nosuch is none of scopevit, mmpretrain, mmdet, mmseg, mmpose'),
    ],
)
def test_missing_configs_are_named(name, says, root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=says):
        config.load_config(name)


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('optim_wrapper', 5, 'optim_wrapper is 5, but has to be a dict'),
        ('custom_hooks', 'SyncBuffersHook', "custom_hooks is 'SyncBuffersHook', but has to be a list or tuple"),
        ('train_dataloader.dataset', 'coco', "train_dataloader.dataset is 'coco', but has to be a dict with a type"),
    ],
)
def test_setting_of_another_kind_is_named(key, value, says):
    with pytest.raises(UserError, match=says):
        config.load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {key: value})


def test_config_and_checkpoint_in_the_wrong_order_are_told(tmp_path):
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(UserError, match='ends in .py, and comes before the checkpoint'):
        config.load_config(str(tmp_path / 'epoch_1.pth'))


@pytest.mark.parametrize(
    'key', ['train_cfg.max_epochs', 'train_cfg.max_iters', 'train_cfg.val_interval', 'val_dataloader.batch_size']
)
@pytest.mark.parametrize('value', [0, -1])
def test_length_or_batch_of_nothing_is_refused(key, value):
    with pytest.raises(UserError, match=f'{key} is {value}, but has to be at least 1'):
        config.load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {key: value})


def test_interval_of_no_validation_is_free():
    nothing = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))
    cfg = config.load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {**nothing, 'train_cfg.val_interval': 0})
    assert cfg.train_cfg.val_interval == 0


def test_misspelt_setting_at_the_top_is_refused_and_a_new_one_is_not():
    name = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    says = '--cfg-options optim_wraper.optimizer.lr: the config has no optim_wraper; did you mean optim_wrapper'
    with pytest.raises(UserError, match=says):
        config.load_config(name, {'optim_wraper.optimizer.lr': 0.1})
    cfg = config.load_config(name, {'randomness.seed': 1, 'gpu.tf32': False, 'sync_bn': 'torch', 'mine.a': 1})
    assert cfg.randomness.seed == cfg.mine.a == 1


def test_override_that_does_not_fit_is_named():
    path = str(CONFIGS / 'scopevit-tiny_8xb128-300e_in1k-256px.py')
    with pytest.raises(UserError, match='--cfg-options does not fit'):
        config.load_config(path, {'model.backbone.arch.depths': 3})


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        (
            'model.data_preprocessor.mean=[0,0,0] model.data_preprocessor.std=[1,1]',
            'model.data_preprocessor.mean and .*std have 3 and 2 numbers',
        ),
        (
            'default_hooks.checkpoint.max_keep_ckpts=all',
            "checkpoint.max_keep_ckpts is 'all', but has to be a whole number",
        ),
        ('default_hooks.checkpoint.filename_tmpl=5', 'checkpoint.filename_tmpl is 5, but has to be a text'),
        ('val_dataloader.sampler=text', "val_dataloader.sampler is 'text', but has to be a dict"),
    ],
)
def test_what_would_be_met_late_is_named(changes, says):
    with pytest.raises(UserError, match=says):
        config.load_config(str(TOY), config.parse_pairs(changes.split()))


def test_module_that_there_is_not_is_named_with_file_and_line(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("a = 1\n\ncustom_imports = dict(imports=['nowhere.to_be_found'])\n")
    with pytest.raises(UserError, match=r'own\.py, line 3: custom_imports names nowhere\.to_be_found'):
        config.load_config(str(path))
    heir = tmp_path / 'heir.py'
    heir.write_text("_base_ = './own.py'\n")
    with pytest.raises(UserError, match=r'heir\.py cannot be loaded: custom_imports names nowhere\.to_be_found'):
        config.load_config(str(heir))


def test_wrong_syntax_is_named_with_file_and_line(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text('a = 1\nb = = 2\n')
    heir = tmp_path / 'heir.py'
    heir.write_text("_base_ = './own.py'\n")
    for name in (path, heir):
        with pytest.raises(UserError, match=r'/own\.py, line 2: SyntaxError: invalid syntax'):
            config.load_config(str(name))


def test_base_that_there_is_not_is_named(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("_base_ = './nowhere.py'\n")
    with pytest.raises(UserError, match=r'own\.py cannot be loaded: .*nowhere\.py'):
        config.load_config(str(path))


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('3', 3),
        ('1e-4', 1e-4),
        ('true', True),
        ('None', None),
        ('small', 'small'),
        ('1,2', [1, 2]),
        ('a,b', ['a', 'b']),
        ('(1,2)', (1, 2)),
        ('[(1, 2), a]', [(1, 2), 'a']),
        ('/data/my photos', '/data/my photos'),
        ('/data/my photos (old) [1]', '/data/my photos (old) [1]'),
        ("'/data/a, b'", '/data/a, b'),
        ("['a b', 'c,d']", ['a b', 'c,d']),
        ("{'type': 'SGD', 'lr': 0.1}", {'type': 'SGD', 'lr': 0.1}),
    ],
)
def test_values_of_overrides(text, value):
    parser = argparse.ArgumentParser()
    add_arguments(parser, '--cfg-options')
    options = parser.parse_args(['--cfg-options', f'a.b={text}', 'c=1']).cfg_options
    assert options == {'a.b': value, 'c': 1}
    assert type(options['a.b']) is type(value)


def test_overrides_that_are_none(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser, '--cfg-options')
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'batch_size', '4'])
    assert "'batch_size' is not of the form KEY=VALUE" in capsys.readouterr().err


def test_all_places_of_weights_are_left_out():
    first, other = dict(type='Pretrained', checkpoint='a.pth'), dict(type='Kaiming', layer='Conv2d')
    settings = dict(init_cfg=[first, other], teacher_ckpt='t.pth', neck=[dict(init_cfg=first, pretrained=True)])
    kept = config.without_weights(settings)
    assert kept == dict(init_cfg=[other], teacher_ckpt=None, neck=[dict(init_cfg=None, pretrained=False)])
    assert settings['init_cfg'] == [first, other]  # the caller's is unchanged
