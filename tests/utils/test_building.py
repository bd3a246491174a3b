"""A wrong setting is named by its key when a model or Runner is built."""

import sys
from unittest.mock import Mock

import pytest
from mmengine.config import Config
from mmengine.visualization import Visualizer

from helpers import ROOT, quiet_toolboxes
from scopevit.apis.model import build_model
from scopevit.engine.launch import build_runner
from scopevit.models import ScopeViT
from scopevit.utils.errors import UserError

RETINANET = ROOT / 'configs' / 'detection' / 'retinanet_scopevit-xtiny_fpn_1x_coco.py'
REMOVED = object()


def changed(key, value):
    settings = Config.fromfile(RETINANET).to_dict()
    *path, last = key.split('.')
    holder = settings
    for name in path:
        holder = holder[name]
    if value is REMOVED:
        del holder[last]
    else:
        holder[last] = value
    return Config(settings)


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('model.neck.type', 'FPNN', r"model\.neck\.type: no 'FPNN' in mmdet.* did you mean FPN\?$"),
        ('model.neck.type', [1], r'model\.neck\.type is \[1\], but has to be the name of a class'),
        ('model.neck.type', REMOVED, r'model\.neck has no type'),
        ('model.neck', 5, r'model\.neck is 5, but has to be a dict with a type'),
        ('model.neck.in_chanels', 5, r"model\.neck: FPN.*argument 'in_chanels'; did you mean in_channels\?"),
        ('model.bbox_head.loss_cls.type', 'FocalLos', r"model\.bbox_head\.loss_cls\.type: no 'FocalLos'"),
        ('model.neck.in_channels', 'text', r'model\.neck: AssertionError.*fpn\.py, line \d+\)'),
        ('model.neck.norm_cfg', 5, r'model\.neck: AssertionError: assert .*norm_cfg.*conv_module\.py, line \d+\)'),
        ('model.backbone.arch', 'huge', r'model\.backbone: .*huge'),
    ],
)
def test_wrong_setting_of_a_model(key, value, says):
    with pytest.raises(UserError, match=f'^the model cannot be built: {says}'):
        build_model(changed(key, value))


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('default_hooks.logger.type', 'LoggerHok', r"default_hooks\.logger\.type: no 'LoggerHok' in .*LoggerHook\?"),
        ('visualizer.vis_backend', [], r"visualizer: .*argument 'vis_backend'; did you mean vis_backends\?"),
        (
            'train_cfg',
            REMOVED,
            r'train_cfg missing, which the config needs beside its train_dataloader and optim_wrapper',
        ),
        ('param_scheduler', [dict(end=5)], r'param_scheduler: .*type'),
        ('model', REMOVED, 'this config has no model'),
        ('randomness', dict(sed=1), r'randomness: .*sed'),
        ('model.neck.num_outs', 'text', r'model\.neck'),
    ],
)
def test_wrong_setting_of_a_runner(key, value, says, tmp_path):
    cfg = changed(key, value)
    cfg.work_dir = str(tmp_path)
    with quiet_toolboxes(), pytest.raises(UserError, match=f'^{says}'):
        build_runner(cfg)


def test_a_logger_that_asks_for_a_login(monkeypatch, tmp_path):
    class Unknown(Exception):
        __module__ = 'wandb.errors.errors'

    monkeypatch.setattr(Visualizer, 'add_config', Mock(side_effect=Unknown('no key')))
    cfg = changed('work_dir', str(tmp_path))
    with quiet_toolboxes(), pytest.raises(UserError, match=r'^wandb .*Unknown: no key .*wandb login.*MODE=offline'):
        build_runner(cfg)


def test_bug_of_this_package_keeps_its_traceback(monkeypatch):
    monkeypatch.delattr(sys.modules[ScopeViT.__module__], 'nn')
    with pytest.raises(NameError, match='nn'):
        build_model(changed('model.backbone.arch', 'xtiny'))
