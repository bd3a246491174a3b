"""Kernels for GPUs against plain formulas in float64: on a GPU where there is one, else by Triton's interpreter."""

import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from helpers import ROOT, TOY, fails_cleanly, tool_here
from scopevit.models import ScopeViT
from scopevit.models.layers import GlobalScaleDilatedAttention, gsda
from scopevit.models.ops import attention, gpu
from scopevit.utils.errors import UserError

OPERATORS = torch.ops.scopevit
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# numpy, by which the interpreter computes, has no bfloat16.
HALF = torch.bfloat16 if DEVICE == 'cuda' else torch.float16
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
ONE_STAGE = dict(embed_dims=(32,), depths=(1,), num_heads=(2,))


@pytest.fixture
def served(monkeypatch):
    """Let the kernels serve on the device of these tests."""
    if DEVICE == 'cpu':
        monkeypatch.setattr(gpu, 'serves', lambda x: x.dtype in gpu.DTYPES and gpu.is_plain_call(x))
    monkeypatch.setattr(gpu, 'SWITCH', 'all')
    # float32, too
    monkeypatch.setattr(gpu, 'serves_attention', lambda x, heads, grid: gpu.serves(x))
    monkeypatch.setattr(gpu, 'serves_mlp', lambda x, hidden: gpu.serves(x))


def close(value, expected, dtype=torch.float32):
    expected = expected.double()
    difference = (value.to(expected) - expected).norm()
    return difference <= TOLERANCE[dtype] * expected.norm().clamp(min=1e-12)


def double(*tensors):
    return [x.detach().double().requires_grad_(x.requires_grad) for x in tensors]


def plain_gsda(qkv, table, heads, grid):
    """Each token's attention to those of its group, one by one from the definition."""
    B, H, W, C3 = qkv.shape
    d = C3 // 3 // heads
    sh, sw = -(-H // grid), -(-W // grid)
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(H), torch.arange(W), indexing='ij'))
    same = (y[:, None] % sh == y[None] % sh) & (x[:, None] % sw == x[None] % sw)
    dy, dx = y[:, None] // sh - y[None] // sh, x[:, None] // sw - x[None] // sw
    offset = (dy + grid - 1) * (2 * grid - 1) + dx + grid - 1
    q, k, v = qkv.view(B, H * W, 3, heads, d).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / d**0.5 + table[offset.to(table.device)].permute(2, 0, 1)
    weights = logits.masked_fill(~same.to(qkv.device), float('-inf')).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(B, H, W, heads * d)


@pytest.mark.triton
@pytest.mark.parametrize('dtype', [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(
    ('B', 'H', 'W', 'heads', 'd', 'grid'),
    [
        (2, 16, 16, 2, 16, 8),
        (1, 13, 21, 4, 16, 8),  # padded at both sides
        (2, 1, 1, 2, 16, 8),
        (1, 5, 9, 2, 32, 4),  # fewer tokens than a product of matrices takes
        (1, 3, 20, 1, 64, 8),  # lower than the grid
        (2, 7, 7, 1, 16, 7),
    ],
)
def test_dilated_attention(B, H, W, heads, d, grid, dtype):
    torch.manual_seed(0)
    qkv = torch.randn(B, H, W, 3 * heads * d, device=DEVICE, dtype=dtype, requires_grad=True)
    table = torch.randn((2 * grid - 1) ** 2, heads, device=DEVICE, requires_grad=True)
    output = OPERATORS.dilated_attention(qkv, table, heads, grid)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, (qkv, table), grad)
    plain = double(qkv, table)
    expected = plain_gsda(*plain, heads, grid)
    assert output.dtype == dtype
    assert close(output, expected, dtype)
    for value, wanted in zip(gradients, torch.autograd.grad(expected, plain, grad.double())):
        assert close(value, wanted, dtype)


@pytest.mark.triton
@pytest.mark.parametrize('dtype', [torch.float32, HALF], ids=str)
@pytest.mark.parametrize('shape', [(2, 5, 7, 32), (3, 24), (129, 256), (5, 640)])
def test_layer_norm(shape, dtype):
    torch.manual_seed(0)
    x = (3 * torch.randn(shape, device=DEVICE) + 1).to(dtype).requires_grad_()
    weight, bias = torch.randn(2, shape[-1], device=DEVICE).unbind()
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    output = OPERATORS.layer_norm(x, weight, bias, 1e-5, dtype)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, (x, weight, bias), grad)
    plain = double(x, weight, bias)
    expected = F.layer_norm(plain[0], shape[-1:], *plain[1:], eps=1e-5)
    assert output.dtype == dtype
    assert close(output, expected, dtype)
    for value, wanted in zip(gradients, torch.autograd.grad(expected, plain, grad.double())):
        assert close(value, wanted, dtype)


@pytest.mark.triton
@pytest.mark.parametrize('factors', [None, (0.0, 1.25, 1.25)], ids=['all_kept', 'one_dropped'])
@pytest.mark.parametrize('shape', [(3, 5, 7, 32), (3, 1, 1, 24)])
def test_a_branch_is_closed(shape, factors):
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    branch = torch.randn(shape, device=DEVICE, dtype=HALF, requires_grad=True)
    gamma = torch.randn(shape[-1], device=DEVICE, requires_grad=True)
    keep = torch.tensor(factors or (), device=DEVICE)
    output = OPERATORS.close_branch(x, branch, gamma, keep)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, (x, branch, gamma), grad)
    plain = double(x, branch, gamma)
    expected = plain[0] + plain[1] * plain[2] * (keep.double().view(-1, 1, 1, 1) if factors else 1)
    assert output.dtype == torch.float32
    assert close(output, expected)
    for value, wanted, of in zip(gradients, torch.autograd.grad(expected, plain, grad.double()), (x, branch, gamma)):
        assert value.dtype == of.dtype
        assert close(value, wanted, of.dtype)


@pytest.mark.triton
@pytest.mark.parametrize('dtype', [torch.float32, HALF], ids=str)
@pytest.mark.parametrize('factors', [None, (0.0, 1.25)], ids=['all_kept', 'one_dropped'])
@pytest.mark.parametrize(('C', 'K'), [(32, 128), (64, 64), (256, 256)])
def test_mlp_branch(C, K, factors, dtype):
    torch.manual_seed(0)
    shapes = (2, 5, 7, C), (C,), (C,), (K, C), (K,), (C, K), (C,), (C,)
    inputs = [torch.randn(shape, device=DEVICE).div_(shape[-1] ** 0.5 if len(shape) == 2 else 1) for shape in shapes]
    for value in inputs:
        value.requires_grad_()
    keep, none = torch.tensor(factors or (), device=DEVICE), torch.empty(0, device=DEVICE, dtype=dtype)
    output, _ = OPERATORS.mlp_branch(*inputs, keep, 1e-5, dtype, True)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, grad)
    plain = double(*inputs)
    norm, fc1, fc2 = plain[1:3], plain[3:5], plain[5:7]
    branch = F.linear(F.gelu(F.linear(F.layer_norm(plain[0], (C,), *norm, eps=1e-5), *fc1)), *fc2)
    factor = plain[7] * (keep.double().view(-1, 1, 1, 1) if factors else 1)
    expected = plain[0] + branch * factor
    assert output.dtype == torch.float32
    assert close(output, expected, dtype)
    for value, wanted in zip(gradients, torch.autograd.grad(expected, plain, grad.double())):
        assert value.dtype == torch.float32
        assert close(value, wanted, dtype)
    with torch.no_grad():
        unscaled, _ = OPERATORS.mlp_branch(*inputs[:-1], none, none, 1e-5, dtype, False)
        assert close(unscaled, plain[0] + branch, dtype)
        halves, _ = OPERATORS.mlp_branch(*(value.to(dtype) for value in inputs), keep, 1e-5, dtype, False)
    assert halves.dtype == dtype
    assert close(halves, expected, dtype)


@pytest.mark.triton
@pytest.mark.parametrize('dtype', [torch.float32, HALF], ids=str)
@pytest.mark.parametrize(
    ('shape', 'widths', 'kernels', 'stride'),
    [
        ((2, 9, 10), (16, 16), (7, 5), 4),
        ((1, 13, 6), (32, 16, 16), (7, 5, 3), 2),
        ((2, 5, 7), (16, 16, 16), (7, 5, 3), 1),
        ((1, 1, 1), (16,), (7,), 4),
        ((3, 3, 2), (32,), (3,), 1),
    ],
)
def test_depthwise(shape, widths, kernels, stride, dtype):
    torch.manual_seed(0)
    x = torch.randn(*shape, sum(widths), device=DEVICE, dtype=dtype, requires_grad=True)
    weights = [torch.randn(n, 1, k, k, device=DEVICE, requires_grad=True) for n, k in zip(widths, kernels)]
    output = OPERATORS.depthwise(x, weights, stride)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, (x, *weights), grad)
    plain = double(x, *weights)
    parts = plain[0].permute(0, 3, 1, 2).split(widths, dim=1)
    paddings = [(stride - 1 + k - 1) // 2 for k in kernels]
    convolved = [
        F.conv2d(part, weight, stride=stride, padding=padding, groups=len(weight))
        for part, weight, padding in zip(parts, plain[1:], paddings)
    ]
    expected = torch.cat(convolved, dim=1).permute(0, 2, 3, 1)
    assert output.dtype == dtype
    assert output.shape == expected.shape
    assert close(output, expected, dtype)
    for value, wanted in zip(gradients, torch.autograd.grad(expected, plain, grad.double())):
        assert close(value, wanted, dtype)


@pytest.fixture
def used(served, monkeypatch):
    """Names of the operators that were called."""
    names = []
    for name in ('dilated_attention', 'layer_norm', 'close_branch', 'mlp_branch', 'depthwise'):
        run = getattr(OPERATORS, name)
        monkeypatch.setattr(OPERATORS, name, lambda *inputs, name=name, run=run: names.append(name) or run(*inputs))
    return names


def two_stages():
    torch.manual_seed(0)
    arch = dict(embed_dims=(32, 64), depths=(1, 1), num_heads=(2, 4))
    model = ScopeViT(arch, out_indices=(1,), drop_path_rate=0.5).to(DEVICE)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            parameter.data.normal_(1, 0.2)
    return model


@pytest.mark.triton
@pytest.mark.parametrize('size', [(32, 32), (37, 41)])
def test_a_model_is_the_same_with_and_without_kernels(size, used, monkeypatch):
    model = two_stages()
    images = torch.randn(2, 3, *size, device=DEVICE)

    def train():
        torch.manual_seed(1)
        model.zero_grad()
        (output,) = model.train()(images)
        output.square().mean().backward()
        return [output.detach(), *(p.grad.clone() for p in model.parameters())]

    by_kernels = train()
    assert len(used) == 2 * (1 + 1 + 2 + 2 + 2)  # of each stage's two blocks
    monkeypatch.setattr(gpu, 'serves', lambda x: False)
    for value, expected in zip(by_kernels, train()):
        assert (value - expected).norm() <= 2e-4 * expected.norm() + 1e-7


@pytest.mark.triton
@pytest.mark.parametrize('size', [(32, 32), (37, 41)])
def test_a_model_infers_the_same_with_and_without_kernels_and_in_the_deploy_form(size, used, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)  # in which folded weights are rounded otherwise
    model = two_stages()
    images = torch.randn(2, 3, *size, device=DEVICE)
    with monkeypatch.context() as plain, torch.no_grad():
        plain.setattr(gpu, 'serves', lambda x: False)
        model.train()(images)  # for the statistics of batch norms
        (expected,) = model.eval()(images)
    assert not used
    calls = dict(depthwise=2, dilated_attention=2, layer_norm=4, mlp_branch=4)
    for switch, scales in ((lambda: None, dict(close_branch=4)), (model.switch_to_deploy, {})):
        switch()
        with torch.no_grad():
            (output,) = model(images)
        assert Counter(used) == calls | scales
        assert (output - expected).norm() <= 1e-5 * expected.norm()
        used.clear()


@pytest.mark.triton
def test_attention_is_compiled_as_one_operator_for_all_sizes(served):
    torch.manual_seed(0)
    layer = GlobalScaleDilatedAttention(32, 2, 8, 0.0).to(DEVICE)
    operators = []

    def backend(graph, inputs):
        operators.append([str(node.target) for node in graph.graph.nodes])
        return graph

    run = torch.compile(layer, backend=backend, fullgraph=True, dynamic=True)
    for size in ((16, 24), (13, 21)):
        x = torch.randn(2, *size, 32, device=DEVICE)
        assert close(run(x), layer(x), torch.float16)
    assert len(operators) == 1
    assert any('dilated_attention' in name for name in operators[0])


@pytest.mark.triton
@pytest.mark.parametrize('name', ['dilated_attention', 'layer_norm', 'close_branch', 'mlp_branch', 'depthwise'])
def test_operators_are_what_they_declare(name):
    """Shapes and strides, no aliases, gradients, and the same in compiled graphs, as torch checks it."""
    x, wide = (torch.randn(2, 9, 10, 32 * n, device=DEVICE, requires_grad=True) for n in (1, 3))
    weight, bias = (torch.randn(32, device=DEVICE, requires_grad=True) for _ in range(2))
    w1, w2 = (torch.randn(shape, device=DEVICE, requires_grad=True) for shape in ((64, 32), (32, 64)))
    mlp = (weight, bias, w1, torch.randn(64, device=DEVICE, requires_grad=True), w2, bias, weight)
    empty = torch.empty(0, device=DEVICE)
    inputs = dict(
        dilated_attention=(wide, torch.randn(225, 2, device=DEVICE, requires_grad=True), 2, 8),
        layer_norm=(x, weight, bias, 1e-5, torch.float32),
        close_branch=(x, x.detach().clone().requires_grad_(), weight, empty),
        depthwise=(x, [torch.randn(16, 1, k, k, device=DEVICE, requires_grad=True) for k in (5, 3)], 2),
        mlp_branch=(x, *(value.detach().clone().requires_grad_() for value in mlp), empty, 1e-5, HALF, True),
    )
    torch.library.opcheck(getattr(OPERATORS, name).default, inputs[name])


def test_what_kernels_serve(monkeypatch):
    """In which it was measured to be faster."""
    monkeypatch.setattr(gpu, '_runs_on', lambda device: True)
    monkeypatch.setattr(gpu, 'is_plain_call', lambda x: True)

    class OnGPU:
        device, shape = torch.device('cuda'), (2, 8, 8, 32)

        def __init__(self, dtype):
            self.dtype = dtype

    assert gpu.serves_attention(OnGPU(torch.bfloat16), heads=2, grid=8)
    assert not gpu.serves_attention(OnGPU(torch.float32), heads=2, grid=8)
    assert gpu.serves_mlp(OnGPU(torch.bfloat16), hidden=128)
    assert not gpu.serves_mlp(OnGPU(torch.float16), hidden=128)  # which trains
    with torch.no_grad():
        assert gpu.serves_mlp(OnGPU(torch.float16), hidden=128)
        assert not gpu.serves_mlp(OnGPU(torch.float32), hidden=128)
        assert not gpu.serves_mlp(OnGPU(torch.float16), hidden=120)
    weights = [torch.empty(16, 1, k, k) for k in (7, 5)]
    assert not gpu.serves_depthwise(OnGPU(torch.float32), weights)
    with monkeypatch.context() as switch:
        switch.setattr(gpu, 'SWITCH', 'all')
        assert gpu.serves_depthwise(OnGPU(torch.float32), weights)
        assert not gpu.serves_depthwise(OnGPU(torch.float32), [torch.empty(24, 1, 7, 7)])
    with monkeypatch.context() as autocast:
        autocast.setattr(torch, 'is_autocast_enabled', lambda device: True)
        assert gpu.serves_attention(OnGPU(torch.float32), heads=2, grid=8)
    assert not gpu.serves_attention(OnGPU(torch.bfloat16), heads=4, grid=8)  # of 8 channels
    assert not gpu.serves_attention(OnGPU(torch.bfloat16), heads=2, grid=9)  # 81 tokens in a group


@pytest.mark.triton
def test_a_second_derivative_says_how_to_get_it():
    x = torch.randn(2, 32, device=DEVICE, requires_grad=True)
    ones = torch.ones(32, device=DEVICE)
    (first,) = torch.autograd.grad(
        OPERATORS.layer_norm(x, ones, ones, 1e-5, x.dtype).square().sum(), x, create_graph=True
    )
    with pytest.raises(NotImplementedError, match='SCOPEVIT_TRITON=0'):
        first.sum().backward()


def test_kernels_serve_nothing_on_cpus():
    assert not gpu.serves(torch.zeros(2, 32))


@pytest.mark.parametrize('capability', [(7, 5), (8, 0), (9, 0)], ids=['Turing', 'Ampere', 'Hopper'])
@pytest.mark.parametrize('is_on', [False, True])
def test_which_gpus_run_the_kernels(capability, is_on, monkeypatch):
    monkeypatch.setattr(gpu, 'IS_ON', is_on)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(major=capability[0]))
    assert gpu._runs_on(torch.device('cuda:0')) == (is_on and capability >= (8, 0))


def test_kernels_need_what_triton_needs(monkeypatch, tmp_path):
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setattr(gpu.shutil, 'which', lambda name: '/usr/bin/gcc' if name == 'gcc' else None)
    monkeypatch.setattr(gpu.sysconfig, 'get_paths', lambda scheme: dict(include=str(tmp_path)))
    assert gpu.lacking_for_triton() == "Python's headers"
    (tmp_path / 'Python.h').touch()
    assert gpu.lacking_for_triton() is None
    monkeypatch.setattr(gpu.shutil, 'which', lambda name: None)
    assert gpu.lacking_for_triton() == 'a C compiler'
    monkeypatch.setenv('CC', 'mycc')
    assert gpu.lacking_for_triton() is None


def test_kernels_can_be_switched_off():
    script = 'from scopevit.models.ops import gpu; print(gpu.IS_ON)'
    result = subprocess.run(
        [sys.executable, '-c', script],
        env=os.environ | {'SCOPEVIT_TRITON': '0'},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == 'False'


def test_a_switch_that_means_nothing_is_named_by_tools(monkeypatch):
    """When a model is built: an error while modules are imported would be a traceback."""
    monkeypatch.setattr(gpu, 'SWITCH', 'off')
    says = "SCOPEVIT_TRITON in the environment must be 0, 1 or all, but is 'off'"
    with pytest.raises(UserError, match=says):
        ScopeViT('xtiny')
    fails_cleanly(tool_here('analysis/get_flops.py', TOY), says)


@pytest.mark.parametrize(
    ('size', 'entries'),
    [((16, 16), [3] * 10 + [2]), ((13, 21), [3, 3, 2])],  # 4 groups each of 8 maps; 6 as heads of each
    ids=['groups_are_entries', 'groups_are_heads'],
)
def test_large_batches_are_split(size, entries, monkeypatch):
    monkeypatch.setattr(attention, 'MOST_ENTRIES', 3)
    torch.manual_seed(0)
    layer = GlobalScaleDilatedAttention(32, 2, 8, 0.0)
    maps = torch.randn(8, *size, 32, requires_grad=True)
    attend, split = F.scaled_dot_product_attention, []

    def attend_and_count(q, *inputs, **options):
        split.append(len(q))
        return attend(q, *inputs, **options)

    def train():
        output = layer(maps)
        return output, *torch.autograd.grad(output.square().mean(), (maps, *layer.parameters()))

    expected = train()
    monkeypatch.setattr(gsda, 'attention', attention._within_limits)
    monkeypatch.setattr(F, 'scaled_dot_product_attention', attend_and_count)
    for value, wanted in zip(train(), expected):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)
    assert split == entries


@pytest.mark.gpu
@pytest.mark.parametrize('triton', [True, False], ids=['triton', 'pytorch'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('size', [256, 200], ids=['whole', 'padded'])
def test_65536_groups(size, dtype, triton, monkeypatch):
    if not triton:
        monkeypatch.setattr(gpu, 'serves', lambda x: False)
    model = ScopeViT(ONE_STAGE, out_indices=(0,)).cuda()
    images = torch.randn(1024, 3, size, size, device='cuda')
    with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            whole = model.eval()(images)[0]
            parts = [model(part)[0] for part in images.split(256)]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=2e-2, atol=2e-2)
        del whole, parts
        model.train()(images)[0].float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(('has_bias', 'uses_cudnn'), [(True, False), (False, True)])
def test_cudnn_never_attends_with_a_bias(has_bias, uses_cudnn, monkeypatch):
    used = []

    def attend(q, k, v, attn_mask):
        used.append(torch.backends.cuda.cudnn_sdp_enabled())
        return v

    monkeypatch.setattr(F, 'scaled_dot_product_attention', attend)
    with FakeTensorMode():  # of a GPU, which need not be there
        q, k, v = torch.empty(3, 2, 2, 64, 16, device='cuda').unbind()
        attention.attention(q, k, v, torch.empty(1, 2, 64, 64, device='cuda') if has_bias else None)
    assert used == [uses_cudnn]


@pytest.mark.gpu
@pytest.mark.parametrize('triton', [True, False], ids=['triton', 'pytorch'])
@pytest.mark.parametrize('size', [(16, 24), (15, 23)], ids=['whole', 'padded'])  # cuDNN fails with groups of 64 tokens
def test_a_frozen_bias_far_below_zero_leaves_gradients_finite(size, triton, monkeypatch):
    if not triton:
        monkeypatch.setattr(gpu, 'serves', lambda x: False)
    layer = GlobalScaleDilatedAttention(32, 2, 8, 0.0).cuda()
    layer.rel_pos.requires_grad_(False)
    layer.rel_pos.fc2.bias -= 200
    x = torch.randn(4, *size, 32, device='cuda', requires_grad=True)
    with torch.autocast('cuda', torch.bfloat16):
        layer(x).float().square().mean().backward()
    assert x.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_is_as_exact_with_kernels_as_without(dtype, monkeypatch):
    torch.manual_seed(0)
    model = ScopeViT('xtiny', out_indices=(0, 1, 2, 3)).cuda().eval()
    images = torch.randn(2, 3, 200, 333, device='cuda')
    with torch.no_grad():
        expected = [x.double() for x in model.double()(images.double())]
        model.float()
        errors = {}
        for triton in (True, False):
            if not triton:
                monkeypatch.setattr(gpu, 'serves', lambda x: False)
            with torch.autocast('cuda', dtype):
                errors[triton] = [((a - b).norm() / b.norm()).item() for a, b in zip(model(images), expected)]
    assert all(a <= 1.5 * b for a, b in zip(errors[True], errors[False])), errors


@pytest.mark.gpu
@pytest.mark.parametrize(
    ('dynamic', 'sizes'), [(False, [(64, 96)]), (True, [(64, 96), (72, 104)])], ids=['one_size', 'all_sizes']
)
def test_a_compiled_model_trains_as_an_eager_one(dynamic, sizes):
    torch.manual_seed(0)
    model = ScopeViT(ONE_STAGE, out_indices=(0,), rel_pos_drop=0.0).cuda().train()
    compiled = torch.compile(model, dynamic=dynamic)
    for size in sizes:
        images = torch.randn(4, 3, *size, device='cuda')
        gradients = []
        for run in (model, compiled):
            torch.manual_seed(1)
            model.zero_grad()
            with torch.autocast('cuda', torch.bfloat16):
                run(images)[0].float().square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert (gradients[0] - gradients[1]).norm() <= 5e-2 * gradients[0].norm()
