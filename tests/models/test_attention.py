"""The attention kernel for CPUs: the function, its gradients, and when PyTorch's serves instead."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers import KERNEL_IS_POSSIBLE, ROOT
from scopevit import ScopeViT
from scopevit.models.ops import attention as module
from scopevit.models.ops.attention import HEAD_CHANNELS, attention


def tensors(B=2, h=3, N=70, M=50, d=16, bias=False, masked=False, scale=1.0):
    """Queries, keys, values and perhaps a bias, strided as in ScopeViT."""
    torch.manual_seed(0)
    q = scale * torch.randn(B, N, h, d).transpose(1, 2)
    k, v = torch.randn(B, M, 2, h, d).permute(2, 0, 3, 1, 4).unbind()
    bias = torch.randn(1, h, N, M) if bias or masked else None
    if masked:
        keys = torch.rand(h, 1, M) < 0.3
        keys[0, :, :-1] = True  # one key is left, the last
        keys[..., -1] = False
        bias = bias.masked_fill(keys, float('-inf'))
    return q, k, v, bias


def exact(q, k, v, bias=None):
    """In float64, from the formula."""
    q, k, v, bias = (x if x is None else x.double() for x in (q, k, v, bias))
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return (logits if bias is None else logits + bias).softmax(dim=-1) @ v


def is_served(function, *inputs):
    """Whether the kernel runs in a call."""
    with torch.profiler.profile() as profiler:
        function(*inputs)
    return any(event.key == 'scopevit::attention' for event in profiler.key_averages())


def assert_close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert found.isfinite().all()
    assert (found.double() - expected).abs().max() <= tolerance * max(expected.abs().max(), 1e-2)


def test_the_kernel_is_built_where_it_can_be():
    assert (module.KERNEL is not None) == is_served(attention, *tensors()) == KERNEL_IS_POSSIBLE


CASES = [
    *(dict(d=d, bias=bias) for d in HEAD_CHANNELS for bias in (False, True)),
    dict(N=64, M=64, bias=True, B=9),
    dict(N=1, M=1),
    dict(N=33, M=129, masked=True),
    dict(N=500, M=300, B=1, h=1),
    dict(N=31, M=200, masked=True, d=32),
    dict(scale=100.0, bias=True),
    dict(d=8, bias=True),  # not for the kernel
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_function_and_gradients(case, threads):
    inputs = tensors(**case)
    with torch.no_grad():
        assert_close(attention(*inputs), exact(*inputs), 1e-5)
    learnt = [x.clone().requires_grad_() for x in inputs if x is not None]
    references = [x.double().detach().requires_grad_() for x in learnt]
    output, expected = attention(*learnt), exact(*references)
    assert_close(output, expected, 1e-5)
    weights = torch.randn(output.shape)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for x, reference in zip(learnt, references):
        assert_close(x.grad, reference.grad, 1e-4 if case.get('scale') else 1e-5)


def test_gradients_when_only_some_are_wanted():
    """A bias that is not learnt, as in frozen stages, and gradients that are one number for all."""
    q, k, v, bias = tensors(bias=True, B=1, N=300)
    references = [x.double().requires_grad_() for x in (q, k, v)]
    exact(*references, bias).sum().backward()
    for part in range(3):
        learnt = [x.clone().requires_grad_(part == i) for i, x in enumerate((q, k, v))]
        attention(*learnt, bias).sum().backward()
        assert [x.grad is not None for x in learnt] == [part == i for i in range(3)]
        assert_close(learnt[part].grad, references[part].grad)
    learnt = bias.clone().requires_grad_()
    attention(q, k, v, learnt)[:, :, ::2].square().sum().backward()
    reference = bias.double().requires_grad_()
    exact(q, k, v, reference)[:, :, ::2].square().sum().backward()
    assert_close(learnt.grad, reference.grad)


def test_keys_that_begin_with_masked_ones():
    """More than the kernel treats at once, so that it meets only masked keys first; strides of all sorts."""
    q, k, v, bias = tensors(M=200, bias=True)
    bias[..., :150] = float('-inf')
    q, k = q.transpose(2, 3).contiguous().transpose(2, 3), k.repeat_interleave(2, dim=-1)[..., ::2]
    v = v[:, :1].expand(-1, 3, -1, -1)
    learnt = [x.detach().requires_grad_() for x in (q, k, v, bias)]
    references = [x.detach().double().requires_grad_() for x in (q, k, v, bias)]
    output, expected = attention(*learnt), exact(*references)
    assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for x, reference in zip(learnt, references):
        assert_close(x.grad, reference.grad)


@pytest.mark.parametrize('threads', [3], indirect=True)
def test_the_same_numbers_in_every_run(threads):
    """Whatever thread comes first: no sum depends on it."""
    runs = []
    for _ in range(5):
        learnt = [x.clone().requires_grad_() for x in tensors(B=7, h=2, N=64, M=64, bias=True)]
        attention(*learnt).square().sum().backward()
        runs.append([x.grad for x in learnt])
    assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0]))


def test_numbers_that_are_none_stay_visible():
    q, k, v, bias = tensors(bias=True)
    q[0, 0, 5, 0] = float('nan')
    output = attention(q, k, v, bias)
    assert output[0, 0, 5].isnan().all()
    output[0, 0, 5] = 0
    assert output.isfinite().all()


@pytest.mark.kernel
@pytest.mark.parametrize('bias', [False, True])
def test_operators_keep_torchs_rules(bias):
    """Schemas, shapes without values, gradients, compilation: torch's own checks."""
    q, k, v, bias = tensors(B=1, N=40, M=33, bias=bias)
    learnt = tuple(x if x is None else x.detach().requires_grad_() for x in (q, k, v, bias))
    torch.library.opcheck(torch.ops.scopevit.attention, learnt)
    with torch.no_grad():
        output, log_sums = torch.ops.scopevit.attention(q, k, v, bias)
    for learns_bias in {False, bias is not None}:
        args = (torch.randn_like(output), q, k, v, bias, output, log_sums, learns_bias)
        torch.library.opcheck(torch.ops.scopevit.attention_backward, args)
    with pytest.raises(ValueError, match='is for float32 and heads of'):
        torch.ops.scopevit.attention(q.double(), k.double(), v.double(), None)
    with pytest.raises(ValueError, match=r'heads of \(16, 32, 64\) channels'):
        torch.ops.scopevit.attention(q[..., :8], k[..., :8], v[..., :8], None)


def test_pytorch_serves_where_the_kernel_does_not(monkeypatch):
    q, k, v, bias = tensors(bias=True)
    expected = exact(q, k, v, bias)
    assert not is_served(attention, q.double(), k.double(), v.double(), bias.double())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert not is_served(attention, q.bfloat16(), k.bfloat16(), v.bfloat16(), bias.bfloat16())
    with sdpa_kernel(SDPBackend.MATH):  # fused attention is not wanted
        assert not is_served(attention, q, k, v, bias)
    assert attention(q[:0], k[:0], v[:0]).shape == (0, 3, 70, 16)
    assert attention(q.to('meta'), k.to('meta'), v.to('meta')).is_meta
    monkeypatch.setattr(module, 'KERNEL', None)
    assert not is_served(attention, q, k, v, bias)
    assert_close(attention(q, k, v, bias), expected)
    learnt = bias.clone().requires_grad_()
    assert_close(attention(q, k, v, learnt), expected)


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_transforms_and_traces_hold_operators_of_pytorch_alone():
    q, k, v, _ = tensors()
    batched = torch.func.vmap(lambda q: attention(q[None], k[:1], v[:1])[0])(q)
    assert_close(batched, exact(q, k[:1], v[:1]))
    gradient = torch.func.grad(lambda q: attention(q, k, v).sum())(q)
    reference = q.double().requires_grad_()
    exact(reference, k, v).sum().backward()
    assert_close(gradient, reference.grad)
    graph = torch.jit.trace(lambda q, k, v: attention(q, k, v), (q, k, v))
    assert 'scopevit::' not in str(graph.graph)

    class Attention(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v)

    for strict in (False, True):
        graph = torch.export.export(Attention(), (q, k, v), strict=strict)
        assert not any('scopevit' in str(node.target) for node in graph.graph.nodes)


@pytest.mark.slow
def test_compiled_transforms():
    torch._dynamo.reset()
    q, k, v, _ = tensors(B=1, N=8, M=8)
    gradient = torch.func.grad(lambda q: attention(q, k, v).square().sum())
    compiled = torch.compile(gradient, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(q), gradient(q))


def test_forward_derivatives_are_never_lost():
    """PyTorch's fused attention has none and says so; without it there are."""
    q, k, v, _ = tensors()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(NotImplementedError):
            attention(dual, k, v)
        with sdpa_kernel(SDPBackend.MATH):
            tangent = torch.autograd.forward_ad.unpack_dual(attention(dual, k, v)).tangent
    expected = torch.func.jvp(lambda q: exact(q, k, v), (q.double(),), (torch.ones_like(q).double(),))[1]
    assert_close(tangent, expected)


@pytest.mark.kernel
def test_second_derivatives_are_refused():
    q, k, v, _ = (x if x is None else x.clone().requires_grad_() for x in tensors())
    (gradient,) = torch.autograd.grad(attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match='SDPBackend.MATH'):
        gradient.sum().backward()
    with sdpa_kernel(SDPBackend.MATH):
        output = attention(q, k, v)
    (gradient,) = torch.autograd.grad(output.square().sum(), q, create_graph=True)
    gradient.sum().backward()
    assert k.grad.abs().max() > 0


@pytest.mark.kernel
def test_a_backbone_with_the_kernel_equals_one_without(monkeypatch):
    """In training, with padded grids: outputs and all gradients."""
    torch.manual_seed(0)
    model = ScopeViT('xtiny', out_indices=(0, 1, 2, 3), rel_pos_drop=0.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'gamma' in name:
                p.fill_(0.5)
    other, image = copy.deepcopy(model), torch.randn(2, 3, 72, 100)
    assert is_served(model, image)
    other.load_state_dict(model.state_dict())  # batch norms have moved
    features = model(image)
    sum(x.square().mean() for x in features).backward()
    monkeypatch.setattr(module, 'KERNEL', None)
    expected = other(image)
    sum(x.square().mean() for x in expected).backward()
    for a, b in zip(features, expected):
        assert (a - b).abs().max() < 1e-4 * b.std()
    for (name, a), b in zip(model.named_parameters(), other.parameters()):
        assert (a.grad - b.grad).abs().max() < 1e-3 * b.grad.abs().max() + 1e-6, name


@pytest.mark.kernel
@pytest.mark.slow
@torch.no_grad()
def test_the_kernel_serves_compiled_models():
    torch._dynamo.reset()
    model = ScopeViT(dict(embed_dims=(16,), depths=(1,), num_heads=(1,)), out_indices=(0,)).eval()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    for size in (64, 96):
        image = torch.randn(1, 3, size, size + 32)
        assert (compiled(image)[0] - model(image)[0]).abs().max() < 1e-4
    assert is_served(compiled, torch.randn(1, 3, 64, 96))


def test_a_library_of_another_version_is_not_loaded(monkeypatch):
    monkeypatch.setattr(module, 'KERNEL_VERSION', 0)
    assert module._load_kernel() is None


@pytest.mark.kernel
@pytest.mark.slow
def test_instructions_of_older_cpus():
    """The same tests with AVX2's vectors."""
    here = os.path.relpath(__file__, ROOT)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', '-p', 'no:cacheprovider', '-m', 'not slow', here]
    environment = dict(os.environ, ATEN_CPU_CAPABILITY='avx2')
    environment.pop('PYTEST_XDIST_WORKER', None)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
