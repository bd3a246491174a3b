"""Where settings of configs are made."""

import pytest

from helpers import ROOT
from scopevit.utils.origins import origin

BASE = """
size = 64
pipeline = [dict(type='Resize', scale=size), dict(type='Flip')]
train = dict(dataset=dict(type='A', pipeline=pipeline), batch_size=4)
model = dict(
    backbone=dict(type='R', depth=50),
    neck=dict(type='F'),
)
"""
CONFIG = """
_base_ = './base.py'
common = dict(workers=2)
train = dict(**common, dataset=dict(type='B'))
model = dict(backbone=dict(_delete_=True, type='S'))
model['neck']['num'] = 3
test = {{_base_.train}}
val = dict(pipeline=_base_.pipeline, size=2 * 3)
"""


@pytest.mark.parametrize(
    ('key', 'place'),
    [
        ('train.batch_size', 'base.py:4'),
        ('train.dataset.type', 'config.py:4'),
        ('train.dataset.pipeline.1.type', 'base.py:3'),
        ('train.dataset.pipeline.0.scale', 'base.py:3'),
        ('train.workers', 'config.py:3'),
        ('model.backbone.type', 'config.py:5'),
        ('model.backbone.depth', None),  # deleted
        ('model.neck.num', 'config.py:6'),
        ('model.neck.type', 'base.py:7'),
        ('test.batch_size', 'base.py:4'),
        ('val.pipeline.1.type', 'base.py:3'),
        ('val.size', 'config.py:8'),
        ('nothing', None),
    ],
)
def test_origin(key, place, tmp_path, monkeypatch):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    found = origin('config.py', tuple(key.split('.')))
    assert (found and str(found)) == place


def test_origin_in_an_installed_toolbox(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'
    assert str(origin(config, ('model', 'neck', 'type'))).startswith('mmdet::_base_/models/retinanet_r50_fpn.py:')
    assert str(origin('scopevit::detection/' + config.split('/')[-1], ('model', 'neck', 'in_channels'))).startswith(
        'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py:'
    )
