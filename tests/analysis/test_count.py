"""MACs against formulas worked out by hand, operator by operator and for whole models."""

import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from helpers import ROOT
from scopevit import ScopeViT
from scopevit.analysis import count

COUNTS = json.loads((ROOT / 'tests' / 'data' / 'counts.json').read_text())


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Classifier(nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.backbone = ScopeViT(arch)
        self.head = nn.Linear(self.backbone.feature_channels[-1], 1000)

    def forward(self, x):
        return self.head(self.backbone(x)[-1].mean((2, 3)))


class CrossAttention(nn.Module):
    def __init__(self, weights, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=batch_first)
        self.weights = weights

    def forward(self, x, memory):
        return self.attention(x, memory, memory, need_weights=self.weights)[0]


def really(model, *inputs):
    """Run a model where its tensors are, not on torch's meta device."""
    if any(x.is_meta for x in inputs):
        raise NotImplementedError
    return model(*inputs)


def in_inference_mode(model, *inputs):
    with torch.inference_mode():
        return really(model, *inputs)


HOW = pytest.mark.parametrize('call', [None, really, in_inference_mode], ids=['meta', 'cpu', 'inference_mode'])


@HOW
@pytest.mark.parametrize(
    ('layer', 'shape', 'kind', 'macs'),
    [
        (nn.Conv2d(6, 8, 3, padding=1), (2, 6, 10, 7), 'conv', 2 * 8 * 10 * 7 * 6 * 9),
        (nn.Conv2d(6, 8, 3, stride=2, groups=2), (1, 6, 11, 7), 'conv', 8 * 5 * 3 * 3 * 9),
        (nn.Conv2d(6, 6, 5, padding='same', groups=6, dilation=2), (1, 6, 9, 9), 'conv', 6 * 81 * 25),
        (nn.Conv1d(4, 5, 3), (1, 4, 10), 'conv', 5 * 8 * 4 * 3),
        (nn.ConvTranspose2d(6, 4, 4, stride=2, groups=2), (1, 6, 5, 3), 'conv', 6 * 15 * 2 * 16),
        (nn.Linear(6, 9), (6,), 'linear', 54),
        (nn.Linear(6, 9), (2, 3, 5, 6), 'linear', 30 * 54),
        (nn.Linear(6, 9, bias=False), (2, 3, 5, 6), 'linear', 30 * 54),
        (
            Function(lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones_like(x[0, :, 0, :6]))),
            (2, 6, 3, 6),
            'linear',
            1296,
        ),
    ],
)
def test_layers(layer, shape, kind, macs, call):
    found = count(layer, torch.rand(shape), call=call)
    assert found.macs == macs
    assert {name for name, value in found.by_kind.items() if value} == {kind}
    assert found.parameters == sum(p.numel() for p in layer.parameters())


@HOW
@pytest.mark.parametrize(
    ('function', 'shapes', 'macs'),
    [
        (torch.matmul, [(4, 5), (5, 6)], 120),
        (torch.matmul, [(2, 3, 4, 5), (2, 3, 5, 6)], 6 * 120),
        (torch.matmul, [(2, 3, 4, 5), (5,)], 6 * 20),
        (torch.matmul, [(5,), (5,)], 5),
        (torch.bmm, [(3, 4, 5), (3, 5, 6)], 360),
        (torch.baddbmm, [(3, 4, 6), (3, 4, 5), (3, 5, 6)], 360),
        (lambda a, b: torch.zeros_like(a[:, :1]).expand(-1, 6).clone().addmm_(a, b), [(4, 5), (5, 6)], 120),
        (lambda a, b: torch.einsum('bhid,bhjd->bhij', a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], 6 * 120),
        (lambda a, b: torch.einsum('bnc,dc->bnd', a, b), [(2, 3, 5), (4, 5)], 120),
        (lambda a: F.layer_norm(F.gelu(a).softmax(-1) + a * a, (6,)), [(4, 6)], 0),
        (lambda a: F.interpolate(F.avg_pool2d(a, 2), scale_factor=2), [(1, 3, 8, 8)], 0),
    ],
)
def test_products(function, shapes, macs, call):
    found = count(Function(function), *map(torch.rand, shapes), call=call)
    assert found.macs == macs == sum(found.by_kind.values())
    assert found.parameters == 0


@HOW
@pytest.mark.parametrize('masked', [False, True])
def test_fused_attention(masked, call):
    # B * heads * Lq * Lk * (d_k + d_v)
    def attend(q, k, v):
        mask = q.new_zeros(q.shape[-2], k.shape[-2]) if masked else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    q, k, v = torch.rand(2, 3, 10, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    assert count(Function(attend), q, k, v, call=call).macs == 2 * 3 * 10 * 7 * 16
    # Values of another width, which no fused kernel takes.
    assert count(Function(attend), q, k, torch.rand(2, 3, 7, 5), call=call).macs == 2 * 3 * 10 * 7 * 13


@HOW
@pytest.mark.parametrize('weights', [False, True])
@pytest.mark.parametrize('batch_first', [False, True])
def test_multihead_attention(weights, batch_first, call):
    model = CrossAttention(weights, batch_first)
    x = torch.rand((2, 10, 12) if batch_first else (10, 2, 12))
    memory = torch.rand((2, 7, 12) if batch_first else (7, 2, 12))
    projections, products = 2 * (2 * 10 + 2 * 7) * 144, 2 * 10 * 7 * 24
    assert count(model, x, memory, call=call).by_kind == dict(conv=0, linear=projections, matmul=products)
    # Self-attention, for which torch has one operator that does it all.
    assert count(model.attention.eval(), x, x, x, call=call).macs == 2 * 10 * (4 * 144 + 10 * 24)


@HOW
def test_transformer_encoder(call):
    layer = nn.TransformerEncoderLayer(12, 3, dim_feedforward=40, batch_first=True).eval()
    found = count(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.rand(2, 10, 12), call=call)
    assert found.macs == 2 * 2 * 10 * (4 * 144 + 10 * 24 + 2 * 12 * 40)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize('arch', COUNTS)
def test_scopevit(arch):
    expected = COUNTS[arch]
    found = count(Classifier(arch), torch.rand(1, 3, 256, 256))
    # The figures in the file hold norms besides.
    macs = expected['macs_256']
    # 1x1 convolutions count as linear layers.
    assert found.by_kind['conv'] + found.by_kind['linear'] == macs['conv'] + macs['linear']
    assert found.by_kind['matmul'] == macs['matmul']
    assert found.macs == sum(found.by_kind.values())
    assert found.parameters == expected['total_with_1000_way_head']
    assert found.modules['backbone'].parameters == expected['backbone']
    assert found.modules['head'].macs == expected['head'] - 1000
    stages = [found.modules[f'backbone.stages.{i}'] for i in range(4)]
    for i, stage in enumerate(stages, 1):
        assert stage.parameters == sum(expected[f'stage{i}'].values())
    assert (
        sum(stage.macs for stage in stages) == found.modules['backbone'].macs == found.macs - found.modules['head'].macs
    )


def test_what_a_model_keeps_is_counted_anew():
    model = Classifier('xtiny').eval()
    image = torch.rand(1, 3, 64, 64)
    before = count(model, image)
    with torch.no_grad():
        model(image)
    assert count(model, image) == count(model, image, call=really) == before


def test_deploy_form():
    """On a CPU its linear layers may be oneDNN's, fused with what follows; attention's bias is a table.

    The 5x5 and 3x3 scopes are 7x7 ones, with zeros around their kernels.
    """
    model = Classifier('xtiny').eval()
    image = torch.rand(1, 3, 64, 64)
    before = count(model, image)
    model.backbone.switch_to_deploy()
    frames = 25 * 16 * 24 + 2 * 16 * 16 * (24 + 40) + 4 * 16 * 16 * (3 * 24 + 40) + 4 * 16 * (6 * 24 + 2 * 40)
    bias_mlps = 8 * 15**2 * 512 * 2 + 15**2 * 512 * (2 + 2 * 4 + 4 * 8 + 16)
    for call in (None, really, in_inference_mode):
        found = count(model, image, call=call)
        linear, conv = before.by_kind['linear'] - bias_mlps, before.by_kind['conv'] + frames
        assert found.by_kind == dict(before.by_kind, linear=linear, conv=conv)
        assert found.uncounted == ()


def test_padding_is_counted():
    # One stage, 16 channels in 2 heads, an image of 52x37: a map of 13x10.
    arch = dict(embed_dims=(16,), depths=(1,), num_heads=(2,))
    found = count(ScopeViT(arch, out_indices=(0,)), torch.rand(1, 3, 52, 37))
    tokens = 13 * 10
    # K/V stride 4 with paddings 4 and 3 of the 7x7 and 5x5 scopes: (13 + 8 - 7) // 4 + 1 by (10 + 8 - 7) // 4 + 1.
    keys = 4 * 3
    # Groups of tokens 2 apart, on 14x10: 4 of 7x5 tokens.
    groups, members = 4, 7 * 5
    assert found.by_kind['matmul'] == 2 * 16 * (tokens * keys + groups * members**2)
    stem = 9 * 8 * 3 * 26 * 19 + 9 * 16 * 8 * tokens
    scopes = keys * 8 * (49 + 25)
    assert found.by_kind['conv'] == stem + tokens * 9 * 64 + scopes


def test_swin():
    """With 64 channels; window attention in separate products."""
    arch = dict(embed_dims=64, depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 16])
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='SwinTransformer', arch=arch, img_size=224),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=512),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(model)
    found = count(model, torch.rand(1, 3, 224, 224))
    assert (found.parameters, found.macs) == (12764388, 2030331904)


def test_modules_add_up():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.Linear(4, 2))
    found = count(model, torch.rand(3, 4))
    assert list(found.modules) == ['', '0', '0.0', '0.1', '2']
    assert found.parameters == 20 + 10
    assert found.modules['0.0'].macs == 2 * 3 * 16  # both calls, under the first name
    assert found.modules['0'].type == 'Sequential'
    assert found.macs == 2 * 3 * 16 + 3 * 8


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    model[1].eval()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    for call in (None, really):
        assert count(model, torch.rand(2, 3, 8, 8), call=call).macs == 2 * 4 * 36 * 27
    after = model.state_dict(keep_vars=True)
    assert all(id(after[name]) == key and torch.equal(after[name], value) for name, (key, value) in before.items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_values_that_decide_what_is_computed():
    """Where a model reads values it runs for real."""
    layer = nn.Linear(4, 4)
    model = Function(lambda x: layer(x[x[:, 0] > 0]))
    assert count(model, torch.tensor([[1.0] * 4, [-1.0] * 4, [2.0] * 4])).macs == 2 * 16


def test_operators_of_other_libraries_are_named():
    def fast_norm(x):
        return torch.ops.counted.double(x)

    library = torch.library.Library('counted', 'DEF')
    library.define('double(Tensor x) -> Tensor')
    library.impl('double', lambda x: x * 2, 'CompositeExplicitAutograd')
    assert count(Function(fast_norm), torch.rand(2)).uncounted == ('counted::double',)
    assert count(Function(torch.sin), torch.rand(2)).uncounted == ()


def test_bad_input_raises_what_the_model_raises():
    with pytest.raises(ValueError, match='takes a batch of images'):
        count(Classifier('xtiny'), torch.rand(1, 4, 64, 64))
    assert torch.backends.mha.get_fastpath_enabled()
