"""What kinds of operators take of the time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scopevit.analysis.profiling import KINDS, kind_of, profile


@pytest.mark.parametrize(
    ('kind', 'operators'),
    [
        ('conv', 'aten::mkldnn_convolution aten::convolution_backward aten::_conv_depthwise2d'),
        ('attention', 'aten::_scaled_dot_product_flash_attention_for_cpu aten::bmm aten::baddbmm aten::_softmax'),
        ('linear', 'aten::mm aten::addmm aten::matmul mkldnn::_linear_pointwise'),
        ('norm', 'aten::native_layer_norm aten::native_batch_norm_backward'),
        ('activation', 'aten::gelu aten::gelu_backward aten::clamp_min aten::threshold_backward aten::silu'),
        ('copies', 'aten::copy_ aten::cat aten::clone aten::index_select aten::constant_pad_nd'),
        ('elementwise', 'aten::add aten::addcmul_ aten::mul aten::sum aten::masked_fill aten::native_dropout'),
        ('other', 'aten::empty aten::expand aten::upsample_bilinear2d aten::max_pool2d aten::reshape'),
    ],
)
def test_kinds_of_operators(kind, operators):
    assert {operator: kind_of(operator) for operator in operators.split()} == dict.fromkeys(operators.split(), kind)


@pytest.mark.parametrize(
    ('kind', 'function'),
    [
        ('conv', lambda x: F.conv2d(x, torch.ones(8, 8, 3, 3))),
        ('attention', lambda x: F.scaled_dot_product_attention(x, x, x)),
        ('attention', lambda x: x @ x.transpose(-2, -1)),
        ('linear', lambda x: F.linear(x, torch.ones(64, 64))),
        ('linear', lambda x: F.conv2d(x, torch.ones(64, 8, 1, 1))),
        ('conv', lambda x: F.conv2d(x, torch.ones(8, 1, 3, 3), groups=8)),
        ('norm', lambda x: F.layer_norm(x, (64,))),
        ('activation', F.gelu),
        ('activation', F.relu),
        ('elementwise', lambda x: x * x),
        ('copies', lambda x: x.transpose(2, 3).contiguous()),
    ],
)
def test_shares(kind, function):
    image = torch.rand(2, 8, 64, 64)
    function(image)
    found = profile(lambda: function(image), torch.device('cpu'))
    assert set(found.shares) == {*KINDS, 'other'}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert max((name for name in found.shares if name != 'other'), key=found.shares.get) == kind
    assert found.memory > 0
    assert (found.gpu_seconds, found.launches, found.kernels) == (0, 0, [])


def test_training():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU())
    image = torch.rand(2, 3, 32, 32)
    found = profile(lambda: model(image).sum().backward(), torch.device('cpu'))
    assert min(found.shares['conv'], found.shares['activation'], found.memory) > 0
