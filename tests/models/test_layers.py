"""Layers that both kinds of block share."""

import pytest
import torch
import torch.nn.functional as F

from scopevit.models import ScopeViT
from scopevit.models.layers import TransformerBlock
from scopevit.models.ops import gpu, rows
from scopevit.models.ops.linear import product as linear


@pytest.mark.parametrize('shape', [(1, 3, 3), (2, 4, 6), (3, 1, 16), (16, 1, 1), (17, 5, 3), (1, 1, 1)])
@pytest.mark.parametrize('has_bias', [False, True])
def test_linear_layers_equal_pytorchs(shape, has_bias, threads):
    """However many images and threads decide who computes them, and for tokens that lie in memory as a map."""
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 5), torch.randn(7) if has_bias else None
    for x in (torch.randn(*shape, 5), torch.randn(shape[0], 5, *shape[1:]).permute(0, 2, 3, 1)):
        tensors = [t for t in (x, weight, bias) if t is not None]
        found, expected = ([t.clone().requires_grad_() for t in tensors] for _ in range(2))
        results = linear(*found), F.linear(*expected)
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        for result in results:
            result.square().sum().backward()
        for a, b in zip(found, expected):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)


def test_linear_layers_take_empty_batches(threads):
    assert linear(torch.zeros(0, 4, 4, 5), torch.zeros(7, 5)).shape == (0, 4, 4, 7)


def test_training_after_an_evaluation_in_inference_mode():
    """Whatever evaluation keeps, training does not get."""
    model = ScopeViT('xtiny', out_indices=(0,))
    with torch.inference_mode():
        model.eval()(torch.rand(1, 3, 32, 32))
    model.train()(torch.rand(2, 3, 32, 32))[0].sum().backward()


@pytest.mark.parametrize('watched', ['mlp', 'mlp.fc1', 'ls2', 'ls2.drop_path', 'norm2'])
def test_layers_with_hooks_are_not_fused(watched, monkeypatch):
    """Where the kernel of an MLP's branch serves, it leaves out none of the layers that a hook is to see."""
    block = TransformerBlock(torch.nn.Identity(), dim=16, mlp_ratio=4, drop_path=0.5)
    x, fused, seen = torch.rand(2, 3, 5, 16), [], []
    monkeypatch.setattr(gpu, 'serves', lambda x: True)
    monkeypatch.setattr(gpu, 'serves_mlp', lambda x, hidden: True)
    monkeypatch.setattr(gpu, 'serves_rows', lambda x: False)
    monkeypatch.setattr(rows, 'fused_mlp', lambda x, *_: fused.append(True) or x)
    block(x)
    assert fused
    fused.clear()
    block.get_submodule(watched).register_forward_hook(lambda *_: seen.append(True))
    block(x)
    assert seen
    assert not fused
