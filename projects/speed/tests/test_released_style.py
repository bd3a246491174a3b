"""The baseline of our timings is the same function, computed otherwise."""

import copy

import pytest
import torch

from helpers import ROOT, fails_cleanly, load_tool, tool_here
from reference.weights import fill, formula_image
from scopevit.analysis import count
from scopevit.analysis.measuring import COPIED_BYTES, MATMUL_SIDES
from scopevit.models import ScopeViT
from scopevit.utils.errors import UserError

STYLE = ROOT / 'projects' / 'speed' / 'released_style.py'
ARCH = dict(embed_dims=(16, 16, 32, 64), depths=(1, 1, 2, 1), num_heads=(2, 2, 4, 8))


@pytest.fixture
def released():
    return load_tool(STYLE)


@pytest.fixture
def backbone():
    """Gammas are near 0.5; nothing is random in training."""
    model = fill(ScopeViT(ARCH, out_indices=(0, 1, 2, 3), rel_pos_drop=0.0, drop_path_rate=0.0))
    assert 0.3 < model.stages[3].blocks[0].gsda.ls1.gamma.mean() < 0.7
    return model.float()


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('size', [(256, 256), (256, 512)])
def test_same_function(released, backbone, size, train):
    style = released.ReleasedStyleScopeViT(copy.deepcopy(backbone)).train(train)
    backbone.train(train)
    image = formula_image(*size, batch=2).float()
    for ours, theirs in zip(backbone(image), style(image)):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4 * ours.abs().max().item())
    for (name, ours), theirs in zip(backbone.named_buffers(), style.buffers()):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4, msg=name)


def test_same_gradients(released, backbone):
    style = released.ReleasedStyleScopeViT(copy.deepcopy(backbone)).double().train()
    backbone.double().train()
    image = formula_image(256, 256, batch=2)
    for model in (backbone, style):
        sum(x.square().mean() for x in model(image)).backward()
    for ours, theirs in zip(backbone.parameters(), style.parameters()):
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-6, atol=1e-12)


@torch.no_grad()
def test_it_computes_what_the_released_code_computes(released, backbone):
    """The same products, attention not fused, and the bias at every call."""
    style = released.ReleasedStyleScopeViT(backbone).eval()
    image = torch.rand(1, 3, 256, 256)
    ours, theirs = count(backbone, image), count(style, image)
    assert (ours.macs, ours.by_kind['matmul']) == (theirs.macs, theirs.by_kind['matmul'])
    with torch.profiler.profile() as profiler:
        style(image)
        style(image)
    operators = {event.key: event.count for event in profiler.key_averages()}
    assert not any('scaled_dot_product' in name or 'scopevit' in name for name in operators)
    blocks = 2 * 5
    assert operators['aten::softmax'] == 2 * blocks
    assert operators['aten::log1p'] == blocks  # in each call one for each block with global attention


@pytest.mark.parametrize('size', [(96, 96), (256, 320)])
def test_sizes_that_do_not_divide(released, backbone, size):
    with pytest.raises(UserError, match=f'multiples of 256, but got {size[0]}x{size[1]}'):
        released.ReleasedStyleScopeViT(backbone)(torch.zeros(1, 3, *size))


def test_variants(released):
    for arch in ('xtiny', 'tiny', 'small'):
        expected = sum(p.numel() for p in ScopeViT(arch).parameters())
        assert sum(p.numel() for p in getattr(released, arch)().parameters()) == expected
    assert released.xtiny(out_indices=(1, 3)).backbone.out_indices == (1, 3)


def test_the_benchmark_takes_it_and_says_what_it_cannot(monkeypatch):
    monkeypatch.setitem(MATMUL_SIDES, 'cpu', 64)
    monkeypatch.setitem(COPIED_BYTES, 'cpu', 4096)
    words = ('--batch-size', 1, '--warmup', 1, '--rounds', 1, '--calls', 1)
    result = tool_here('analysis/benchmark.py', f'{STYLE}:xtiny@256', '--deploy', *words)
    assert result.returncode == 0, result.stderr
    for network, says in (
        (f'{STYLE}:xtiny@256:deploy', 'has no form for deployment'),
        (f'{STYLE}:xtiny@96', 'multiples of 256, but got 96x96'),
    ):
        fails_cleanly(tool_here('analysis/benchmark.py', network, *words), says)
