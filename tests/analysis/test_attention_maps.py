"""Weights of attention, computed again, and the distances that they span."""

import numpy as np
import pytest
import torch
from torch import nn

from scopevit.analysis.attention_maps import (
    GSDA,
    attention_layers,
    by_scope,
    gsda_attention,
    head_distances,
    mean_over_images,
    mssa_attention,
    scopevit_of,
)
from scopevit.apis.view import View
from scopevit.models import ScopeViT
from scopevit.models.layers import GlobalScaleDilatedAttention, MultiScaleSelfAttention
from scopevit.utils.errors import UserError


def seen_by_all(layer, compute, x):
    """Attention of all tokens, and the layer's output."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)  # attention that is far from equal
    with torch.no_grad():
        return compute(layer.eval(), x, torch.arange(x.shape[1] * x.shape[2])), layer(x)


@pytest.mark.parametrize('size', [(16, 16), (13, 10), (8, 3), (1, 1)])
@pytest.mark.parametrize('max_keys', [None, 12])
@pytest.mark.parametrize('stride', [1, 2, 4])
def test_weights_of_mssa_give_its_output(size, max_keys, stride):
    torch.manual_seed(0)
    layer = MultiScaleSelfAttention(32, (2, 1, 1), stride, 2, max_keys)
    x = torch.randn(1, *size, 32)
    seen, output = seen_by_all(layer, mssa_attention, x)
    with torch.no_grad():
        embedded = layer.embed_scopes(layer.cpe(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        v = layer.key_value(embedded)[..., 32:].reshape(-1, 4, 8).transpose(0, 1)
        again = layer.proj((seen.weights @ v).transpose(0, 1).reshape(1, *size, 32))
    assert torch.allclose(again, output, atol=1e-5)
    assert seen.keys.shape == (1, v.shape[1], 2)


@pytest.mark.parametrize('size', [(16, 16), (13, 10), (9, 3), (1, 1)])
def test_weights_of_gsda_give_its_output(size):
    torch.manual_seed(0)
    layer = GlobalScaleDilatedAttention(32, 4, 4, 0.1)
    x = torch.randn(1, *size, 32)
    seen, output = seen_by_all(layer, gsda_attention, x)
    assert not seen.weights.transpose(0, 1)[~seen.is_real[:, None].expand(-1, 4, -1)].any()
    number = seen.keys[..., 0] * size[1] + seen.keys[..., 1]  # padded keys lie at the first token, with no weight
    with torch.no_grad():
        v = layer.qkv(x)[..., 64:].reshape(-1, 4, 8)[number]
        again = layer.proj(torch.einsum('hqt,qthd->qhd', seen.weights, v).reshape(1, *size, 32))
    assert torch.allclose(again, output, atol=1e-5)


@pytest.mark.parametrize('stride', [1, 2, 4])
def test_a_key_lies_where_its_windows_middle_is(stride):
    layer = MultiScaleSelfAttention(16, (1, 1, 0), stride, 1)
    x = torch.zeros(1, 16, 28, 32)
    x.requires_grad_()
    maps = layer.embed_scopes(x)
    keys = mssa_attention(layer.eval(), torch.zeros(1, 28, 32, 16), torch.tensor([0])).keys
    (touched,) = torch.autograd.grad(maps[..., 3, 3].sum(), x)
    for channels, kernel in ((slice(0, 8), 7), (slice(8, 16), 5)):
        rows, cols = touched[0, channels].abs().sum(0).nonzero().unbind(1)
        assert len(rows) == kernel**2
        middle = torch.stack([rows, cols], 1).double().mean(0)
        assert middle.tolist() == keys[0, 3 * maps.shape[3] + 3].tolist()


ARCH = dict(embed_dims=(16, 32), depths=(1, 2), num_heads=(2, 4))


def test_layers_of_a_backbone_in_both_forms():
    torch.manual_seed(0)
    backbone = ScopeViT(ARCH, out_indices=(0, 1)).eval()
    images = torch.randn(1, 3, 70, 90)
    layers = attention_layers(backbone, images)
    assert [(layer.stage, layer.block) for layer in layers] == [(1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 2)]
    assert [layer.scopes for layer in layers[:3]] == [('7x7', '5x5'), (GSDA, GSDA), ('7x7', '7x7', '5x5', '3x3')]
    assert layers[0].x.shape == (1, 18, 23, 16)
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    backbone.switch_to_deploy()
    queries = torch.tensor([0, 100, 50])
    for layer, folded in zip(layers, attention_layers(backbone, images)):
        assert folded.scopes == layer.scopes
        assert torch.allclose(layer.attend(queries).weights, folded.attend(queries).weights, atol=1e-5)


def test_distances_are_in_pixels_of_the_image():
    backbone = ScopeViT(ARCH, out_indices=(0, 1)).eval()
    for layer in backbone.modules():
        if isinstance(layer, MultiScaleSelfAttention):
            nn.init.zeros_(layer.query.weight)  # all keys alike
    layers = attention_layers(backbone, torch.randn(1, 3, 64, 64))
    image, data = np.zeros((192, 128, 3), np.uint8), dict(inputs=None)

    def heads(scale):
        return head_distances(layers, View(image, data, (64, 64), np.array(scale), np.zeros(2)))

    once, twice = heads([1.0, 1.0]), heads([2.0, 2.0])
    assert len(once) == 2 * 2 + 2 * 2 * 4
    for head, larger in zip(once, twice):
        if head['scope'] != GSDA:
            assert head['distance'] == pytest.approx(head['equal_weights'], rel=1e-4)
        assert larger['distance'] == pytest.approx(2 * head['distance'], rel=1e-4)
    # Tokens and keys of stage 2 are an 8x8 grid of 8 pixels.
    steps = 8 * np.stack(np.meshgrid(range(8), range(8)), -1).reshape(-1, 2)
    expected = np.linalg.norm(steps[:, None] - steps, axis=-1).mean()
    means = by_scope(mean_over_images([once, once]))
    assert means[2, '5x5'] == pytest.approx((expected, expected), rel=1e-4)


def test_another_backbone_is_an_error():
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    with pytest.raises(UserError, match='the backbone is a Linear'):
        scopevit_of(model)
