"""Models as the tools name them, their usual sizes and their form for deployment."""

import sys

import pytest

from helpers import ROOT
from scopevit.analysis.spec import Spec, load_network, parse_size
from scopevit.apis.model import image_channels
from scopevit.utils.errors import UserError

CONFIG = 'configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py'
SHORT = 'scopevit-tiny_8xb128-300e_in1k-256px'
NETS = """
from torch import nn
from beside import CHANNELS

def net(channels=4):
    return nn.Conv2d(CHANNELS, channels, 3)

def number():
    return 3

def fails():
    raise KeyError('width')
"""


@pytest.mark.parametrize(
    ('text', 'spec'),
    [
        (CONFIG, Spec('scopevit-tiny_8xb128-300e_in1k-256px', CONFIG)),
        (f'{CONFIG}:deploy', Spec('scopevit-tiny_8xb128-300e_in1k-256px:deploy', CONFIG, None, True)),
        (f'ours={CONFIG}@256', Spec('ours', CONFIG, (256, 256))),
        (f'ours={CONFIG}@768x1280:deploy', Spec('ours', CONFIG, (768, 1280), True)),
        ('mmdet::a/b_c.py@800x1344', Spec('b_c', 'mmdet::a/b_c.py', (800, 1344))),
        ('timm:repvit_m1_1:deploy', Spec('repvit_m1_1:deploy', 'timm:repvit_m1_1', None, True)),
        ('timm:vit.augreg@384', Spec('vit.augreg', 'timm:vit.augreg', (384, 384))),
        ('/a@b/nets.py:small@32', Spec('small', '/a@b/nets.py:small', (32, 32))),
        (f'cp={CONFIG}@64?a.with_cp=True', Spec('cp', CONFIG, (64, 64), False, {'a.with_cp': True})),
        (f'{CONFIG}:deploy?a=1&b=x', Spec(f'{SHORT}:deploy?a=1&b=x', CONFIG, None, True, dict(a=1, b='x'))),
        ('timm:vit?img=(3,4)&p=0.5', Spec('vit?img=(3,4)&p=0.5', 'timm:vit', options=dict(img=(3, 4), p=0.5))),
        ('a.py:f?w=[a,b]&n=x=y', Spec('f?w=[a,b]&n=x=y', 'a.py:f', options=dict(w=['a', 'b'], n='x=y'))),
    ],
)
def test_specs(text, spec):
    assert Spec.parse(text) == spec


@pytest.mark.parametrize('text', ['', '=a.py', 'a=', 'a=b=c', 'a.py@', 'a.py@0', 'a.py@3x', 'a.py@large', 'a.py@8x8x8'])
def test_bad_specs(text):
    with pytest.raises(UserError, match='is not of the form|is neither a number of pixels'):
        Spec.parse(text)


@pytest.mark.parametrize('options', ['', 'a', 'a=', '=1', 'a=1&', 'a=1&b', 'a=1:deploy'])
def test_bad_options(options):
    with pytest.raises(UserError, match=r'option .* is not of the form KEY=VALUE; SIZE and :deploy stand before'):
        Spec.parse(f'a.py?{options}')


def test_options_that_cannot_be_read():
    with pytest.raises(UserError, match=r"the values of 'a=\[1,\(2\]' cannot be read"):
        Spec.parse('a.py?a=[1,(2]')


def test_sizes_of_text():
    assert parse_size('256') == (256, 256)
    assert parse_size('768x1280') == (768, 1280)


def test_functions_in_files(tmp_path):
    path = tmp_path / 'nets.py'
    path.write_text(NETS)
    (tmp_path / 'beside.py').write_text('CHANNELS = 5')
    before = list(sys.path)
    model, size = load_network(f'{path}:net')
    assert image_channels(model) == 5
    assert size is None
    assert load_network(f'{path}:net', dict(channels=7))[0].out_channels == 7
    with pytest.raises(UserError, match='net got an unexpected keyword argument .width'):
        load_network(f'{path}:net', dict(width=7))
    for function, says in (
        ('nothing', 'has no function nothing'),
        ('number', 'returned a int, not a torch.nn.Module'),
    ):
        with pytest.raises(UserError, match=says):
            load_network(f'{path}:{function}')
    with pytest.raises(KeyError, match='width'):  # a bug of the file's own, which its traceback shows
        load_network(f'{path}:fails')
    with pytest.raises(UserError, match='missing.py does not exist'):
        load_network(f'{tmp_path}/missing.py:net')
    assert sys.path == before


def test_options_override_a_config():
    config = 'configs/classification/scopevit-xtiny_8xb128-300e_in1k-256px.py'
    network, size = load_network(str(ROOT / config), {'model.backbone.with_cp': True, 'model.head.num_classes': 7})
    assert network.model.backbone.stages[0].with_cp
    assert network.model.head.num_classes == 7
    assert size == (256, 256)
    with pytest.raises(UserError, match='model.backbone: .* argument .with_cq.; did you mean with_cp'):
        load_network(str(ROOT / config), {'model.backbone.with_cq': True})


def test_configs_that_do_not_build(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("model = dict(type='Nothing')")
    with pytest.raises(UserError, match='config.py: the model cannot be built: .*Nothing'):
        load_network(str(path))
    path.write_text('lr = 1')
    with pytest.raises(UserError, match='config.py: this config has no model'):
        load_network(str(path))


def test_timm(monkeypatch):
    network, size = load_network('timm:resnet18', dict(num_classes=9))
    assert (network.num_classes, size) == (9, (224, 224))
    network, size = load_network('timm:scopevit_xtiny')
    assert (network.num_classes, size) == (1000, (256, 256))
    for options in (dict(pretrained=True), dict(width=3)):
        with pytest.raises(UserError, match='timm:resnet18 cannot be built: TypeError'):
            load_network('timm:resnet18', options)
    with pytest.raises(UserError, match='timm has no model resnet8; did you mean .*resnet18'):
        load_network('timm:resnet8')
    monkeypatch.setitem(sys.modules, 'timm.layers', None)
    monkeypatch.delitem(sys.modules, 'scopevit.timm')
    with pytest.raises(UserError, match='timm:resnet18 cannot be built: .*pip install "timm>='):
        load_network('timm:resnet18')
