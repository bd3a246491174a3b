"""Other forms of the backbone compute the same function: deploy, compiled, exported, lower precision."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reference.weights import fill, formula_image
from scopevit.models import ScopeViT, layers

NARROW = dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4))
SIZES = [(64, 96), (33, 65), (7, 9)]


def build(arch=NARROW, dtype=torch.float32, **options):
    """All stages out, and weights for which every part matters."""
    return fill(ScopeViT(arch, out_indices=(0, 1, 2, 3), **options)).to(dtype).eval()


def assert_equal(features, expected, tolerance):
    """Differences in units of each map's standard deviation."""
    for a, b in zip(features, expected, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b.double()).abs().max() < tolerance * max(b.double().std(), 1e-3)


@pytest.mark.parametrize('arch', ['xtiny', NARROW], ids=['xtiny', 'narrow'])
@torch.no_grad()
def test_deploy_form_computes_the_same(arch):
    model = build(arch)
    deploy = copy.deepcopy(model)
    deploy.switch_to_deploy()
    deploy.switch_to_deploy()  # again changes nothing
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deploy.stages[0].patch_embed)
    assert sum(p.numel() for p in deploy.parameters()) < sum(p.numel() for p in model.parameters())
    for size in SIZES:
        image = formula_image(*size, batch=2).float()
        assert_equal(deploy(image), build(arch, torch.float64)(image.double()), 2e-4)
    exact = build(arch, torch.float64)
    expected = exact(formula_image(33, 65))
    exact.switch_to_deploy()
    assert_equal(exact(formula_image(33, 65)), expected, 1e-10)


@pytest.mark.parametrize('act', [torch.nn.GELU('tanh'), torch.nn.SiLU()], ids=['tanh', 'SiLU'])
@torch.no_grad()
def test_deploy_form_keeps_activations_that_somebody_has_changed(act):
    model = build(dtype=torch.float64)
    for module in list(model.modules()):
        if isinstance(module, layers.Mlp):
            module.act = act
        elif isinstance(module, layers.ConditionalPositionalEncoding):
            module.depthwise[2] = act
    image = formula_image(33, 65)
    expected = model(image)
    assert (expected[-1] - build(dtype=torch.float64)(image)[-1]).abs().max() > 1e-4  # they matter
    model.switch_to_deploy()
    assert_equal(model(image), expected, 1e-10)


def test_deploy_form_is_built_by_an_option_and_takes_its_weights():
    model = build()
    model.switch_to_deploy()
    other = ScopeViT(NARROW, out_indices=(0, 1, 2, 3), deploy=True)
    assert not other.training
    other.load_state_dict(model.state_dict(), strict=True)
    image = formula_image(40, 56).float()
    assert_equal(other(image), model(image), 1e-6)


def test_deploy_form_hands_gradients_to_its_input_and_knows_autocast():
    model = build()
    model.switch_to_deploy()
    image = formula_image(40, 56).float()
    with torch.no_grad():
        expected = model(image)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            hidden = model.stages[0].blocks[0].mssa.mlp.body.fc1(torch.zeros(1, 4, 4, 16))
    assert hidden.dtype == torch.bfloat16
    image.requires_grad_()
    features = model(image)
    assert_equal(features, expected, 1e-4)
    features[-1].square().sum().backward()
    assert image.grad.abs().max() > 0


def test_deploy_form_cannot_be_trained():
    with pytest.raises(RuntimeError, match='deploy=False'):
        ScopeViT(NARROW, deploy=True).train()(torch.zeros(1, 3, 32, 32))


def test_evaluation_follows_the_parameters():
    """However weights are changed: by an optimiser, a checkpoint, averaging (past autograd), another dtype."""
    image = formula_image(40, 56).float()

    def shift(model):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if 'rel_pos' in name:
                    p.add_(0.3 * torch.sin(torch.arange(p.numel(), dtype=p.dtype)).view(p.shape))

    changed = build()
    shift(changed)
    with torch.no_grad():
        expected, before = changed(image), build()(image)
    assert any((a - b).abs().max() > 1e-2 * b.std() for a, b in zip(expected, before))
    for change in ('in place', 'checkpoint', 'assigned', 'past autograd'):
        model = build()
        with torch.no_grad():
            model(image)
        if change == 'in place':
            shift(model)
        elif change == 'past autograd':
            for p, q in zip(model.parameters(), changed.parameters()):
                p.data.copy_(q.data)
        else:
            model.load_state_dict(changed.state_dict(), assign=change == 'assigned')
        with torch.no_grad():
            assert_equal(model(image), expected, 1e-6)
    double = build()
    with torch.no_grad():
        double(image)
        assert_equal(double.double()(image.double()), build(dtype=torch.float64)(image.double()), 1e-10)


def test_position_bias_gets_gradients_in_evaluation_mode():
    model, image = build(), formula_image(40, 56).float()
    with torch.no_grad():
        model(image)
    sum(x.sum() for x in model(image)).backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for n, p in model.named_parameters() if 'rel_pos.fc2.w' in n
    )


@pytest.mark.parametrize('max_keys', [1, 7, 20])
@torch.no_grad()
def test_limited_keys(max_keys):
    """Averages over rectangles of neighbours; no limit where there are few enough."""
    from scopevit.models.layers import MultiScaleSelfAttention

    torch.manual_seed(0)
    free = MultiScaleSelfAttention(16, (1, 1, 0), 2, 4).eval()
    limited = MultiScaleSelfAttention(16, (1, 1, 0), 2, 4, max_keys=max_keys).eval()
    limited.load_state_dict(free.state_dict())
    x = torch.randn(2, 16, 9, 15)
    embedded, fewer = free.embed_scopes(x), limited.embed_scopes(x)
    assert embedded.shape[2:] == (5, 8)
    assert fewer.shape[2] * fewer.shape[3] <= max_keys
    rows, cols = -(-5 // fewer.shape[2]), -(-8 // fewer.shape[3])
    assert abs(rows - cols) <= 1 or max_keys == 1
    for i, j in [(0, 0), (fewer.shape[2] - 1, fewer.shape[3] - 1)]:
        rectangle = embedded[:, :, i * rows : (i + 1) * rows, j * cols : (j + 1) * cols]
        torch.testing.assert_close(fewer[:, :, i, j], rectangle.mean((2, 3)))
    small = torch.randn(2, 16, 2, 2)
    assert torch.equal(limited.embed_scopes(small), free.embed_scopes(small))


@torch.no_grad()
def test_limited_keys_bound_the_cost_of_a_large_image():
    """Attention's products grow with the number of queries, not with its square; small images change nothing."""

    def products(model, image):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(image)
        return counter.get_flop_counts()['Global'][torch.ops.aten.bmm]

    free, limited = build(), build(max_keys=16)
    tiny, small, large = (formula_image(side, side).float() for side in (32, 256, 512))
    assert_equal(limited(tiny), free(tiny), 1e-6)
    assert products(limited, large) <= 4.1 * products(limited, small)
    assert products(free, large) > 8 * products(free, small)
    assert all(x.isfinite().all() for x in limited(formula_image(333, 77).float()))
    dynamic = torch.export.Dim.DYNAMIC
    with pytest.raises(Exception, match='max_keys needs a graph for each image size'):
        torch.export.export(limited, (large,), dynamic_shapes=({2: dynamic, 3: dynamic},))


def test_bfloat16_autocast_trains_without_nan():
    """At a size where the grid is padded, so that masked keys occur."""
    model = build(drop_path_rate=0.1).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        features = model(formula_image(72, 100, batch=2).float())
        loss = sum(x.float().square().mean() for x in features)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    image = formula_image(72, 100, batch=2).float()
    with torch.no_grad():
        expected = model(image)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert_equal(model(image), expected, 0.3)
        assert_equal(model(image), expected, 1e-6)  # nothing of bfloat16 is left


@pytest.mark.slow
@pytest.mark.parametrize('deploy', [False, True], ids=['ordinary', 'deploy'])
@torch.no_grad()
def test_one_exported_graph_serves_every_size(deploy):
    model = build()
    expected = [model(formula_image(*size, batch=3).float()) for size in [(64, 96), (72, 100), (333, 140)]]
    if deploy:
        model.switch_to_deploy()
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, 200, 333)
    graph = torch.export.export(model, (example,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)).module()
    for size, features in zip([(64, 96), (72, 100), (333, 140)], expected):
        assert_equal(graph(formula_image(*size, batch=3).float()), features, 1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_compiles_without_graph_breaks():
    torch._dynamo.reset()
    model = build()
    compiled = torch.compile(model, backend='eager', fullgraph=True, dynamic=False)
    for size in [(64, 96), (72, 100)]:
        image = formula_image(*size, batch=2).float()
        assert_equal(compiled(image), model(image), 1e-4)


@pytest.mark.slow
def test_compiled_training_with_checkpointing_has_the_same_gradients():
    torch._dynamo.reset()
    image = formula_image(64, 96, batch=2)
    gradients = []
    for with_cp in (False, True):
        model = build(dict(NARROW, depths=(1, 1, 1, 1)), with_cp=with_cp, rel_pos_drop=0.0).double().train()
        form = torch.compile(model, backend='eager', fullgraph=True, dynamic=False) if with_cp else model
        sum(x.square().mean() for x in form(image)).backward()
        gradients.append([p.grad for p in model.parameters()])
    largest = max(gradient.abs().max().item() for gradient in gradients[0])
    for expected, gradient in zip(*gradients):
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12 * largest)


@pytest.mark.slow
@torch.no_grad()
def test_one_compiled_graph_serves_all_sizes():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build()
    compiled = torch.compile(model, backend='eager', fullgraph=True, dynamic=True)
    for size in [(64, 96), (72, 100), (160, 128)]:
        image = formula_image(*size, batch=2).float()
        assert_equal(compiled(image), model(image), 1e-4)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1
