"""Models as the tools name them, their usual sizes and their form for deployment."""

import sys
import types

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from helpers import ROOT
from scopevit.analysis.spec import Spec, load_network, parse_size
from scopevit.apis.model import Network, build_model, image_channels, image_size, switch_to_deploy
from scopevit.utils.config import load_config
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


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        (CONFIG, (256, 256)),
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
    with pytest.raises(UserError, match='ScopeViT has no option .with_cq.; its options are .*with_cp'):
        load_network(str(ROOT / config), {'model.backbone.with_cq': True})


def test_configs_that_do_not_build(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("model = dict(type='Nothing')")
    with pytest.raises(UserError, match='config.py: the model cannot be built: KeyError'):
        load_network(str(path))
    path.write_text('lr = 1')
    with pytest.raises(UserError, match='config.py: this config has no model'):
        load_network(str(path))


def test_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match='timm:resnet18 needs timm, which is not installed'):
        load_network('timm:resnet18')

    net = nn.Conv2d(3, 4, 3)
    net.pretrained_cfg = dict(input_size=(3, 288, 256))

    def create_model(name, pretrained, classes=4):
        assert not pretrained
        net.out_channels = classes
        return net

    timm = types.SimpleNamespace(
        is_model=lambda name: name == 'resnet18', list_models=lambda: ['resnet18', 'vit'], create_model=create_model
    )
    monkeypatch.setitem(sys.modules, 'timm', timm)
    assert load_network('timm:resnet18') == (net, (288, 256))
    assert load_network('timm:resnet18', dict(classes=9))[0].out_channels == 9
    for options in (dict(pretrained=True), dict(width=3)):
        with pytest.raises(UserError, match='timm:resnet18 cannot be built: TypeError'):
            load_network('timm:resnet18', options)
    with pytest.raises(UserError, match='timm has no model resnet8; did you mean resnet18'):
        load_network('timm:resnet8')


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
