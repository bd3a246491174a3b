"""The backbone as a module that the tools of the PyTorch world work with, in both of its forms."""

import copy
import io
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

from reference.weights import fill, formula_image
from scopevit.models import ScopeViT
from scopevit.utils.errors import UserError

COUNTS = json.loads((Path(__file__).parents[1] / 'data' / 'counts.json').read_text())
NARROW = dict(embed_dims=(16, 32, 64), depths=(1, 1, 1), num_heads=(1, 2, 4))
FORMS = pytest.mark.parametrize('deploy', [False, True], ids=['ordinary', 'deploy'])
IMAGES = formula_image(72, 100, batch=2).float()  # of a size at which grids are padded


def build(deploy=False, **options):
    """All stages out, in evaluation, and weights for which every part matters."""
    model = fill(ScopeViT(NARROW, out_indices=(0, 1, 2), **options)).float().eval()
    if deploy:
        model.switch_to_deploy()
    return model


def assert_equal(features, expected, tolerance=1e-4):
    """Differences in units of each map's standard deviation."""
    for a, b in zip(features, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < tolerance * b.std()


def loss_of(features):
    return sum(x.square().mean() for x in features)


# Weights that change in whatever way


def moved(model):
    """Other values for all parameters."""
    return {n: p.detach() + 0.3 * torch.sin(torch.arange(p.numel())).view(p.shape) for n, p in model.named_parameters()}


def assign_data(model, values):
    for name, p in model.named_parameters():
        p.data = values[name]


def average_as_a_teacher(model, values):
    for name, p in model.named_parameters():
        p.data.mul_(0.5).add_(values[name], alpha=0.5)
    for name, p in model.named_parameters():
        p.data.copy_(values[name])


def write_as_a_vector(model, values):
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(values.values()), model.parameters())


@FORMS
@pytest.mark.parametrize('change', [assign_data, average_as_a_teacher, write_as_a_vector])
@torch.no_grad()
def test_no_result_is_of_earlier_weights(deploy, change):
    model, other = build(deploy), build(deploy)
    values = moved(model)
    before = model(IMAGES)
    other.load_state_dict(values, strict=False)
    expected = other(IMAGES)
    assert (before[-1] - expected[-1]).abs().max() > 0.1 * expected[-1].std()
    for _ in range(2):
        assert_equal(functional_call(model, values, IMAGES), expected)
        assert_equal(model(IMAGES), before)
    change(model, values)
    assert_equal(model(IMAGES), expected)


# Tracing


@FORMS
@torch.no_grad()
def test_symbolic_trace(deploy):
    """One graph for all sizes, in which layers are steps."""
    model = build(deploy)
    graph = torch.fx.symbolic_trace(model)
    for images in (IMAGES, formula_image(64, 40).float()):
        assert_equal(graph(images), model(images))
    layers = {node.target for node in graph.graph.nodes if node.op == 'call_module'}
    assert layers >= {name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\)'):
        graph(torch.zeros(1, 4, 32, 32))


def test_symbolic_trace_of_a_training():
    model = build(drop_path_rate=0.5).train()
    gradients = []
    for form in (model, torch.fx.symbolic_trace(model)):
        torch.manual_seed(0)
        gradients.append(torch.autograd.grad(loss_of(form(IMAGES)), [*model.parameters()]))
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@FORMS
@torch.no_grad()
def test_feature_extractor_of_torchvision(deploy):
    model = build(deploy)
    extractor = create_feature_extractor(model, {'stages.1.norm': 'map', 'stages.2.patch_embed': 'embedded'})
    features = extractor(IMAGES)
    assert_equal([features['map']], [model(IMAGES)[1]])
    assert features['embedded'].shape == (2, 64, 5, 7)


@FORMS
@pytest.mark.parametrize('grad_mode', [True, False])
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_jit_trace(deploy, grad_mode):
    model = build(deploy)
    with torch.set_grad_enabled(grad_mode):
        graph = torch.jit.trace(model, IMAGES)
        assert_equal(graph(IMAGES.flip(0)), model(IMAGES.flip(0)))


@FORMS
@pytest.mark.filterwarnings('ignore:`torch.jit.script` is deprecated')
def test_jit_script_is_refused(deploy):
    """As part of a model, too, with what to use instead."""
    for model in (build(deploy), nn.Sequential(build(deploy), nn.Identity())):
        with pytest.raises(UserError, match=r'torch\.export or torch\.jit\.trace'):
            torch.jit.script(model)


def assert_layers_are_steps(program, model):
    """Each layer is an operator of PyTorch, as tools that quantize graphs look for them."""
    operators = [str(node.target) for node in program.graph.nodes]
    for name, kind in (('linear', nn.Linear), ('conv2d', nn.Conv2d)):
        assert operators.count(f'aten.{name}.default') == sum(isinstance(m, kind) for m in model.modules())
    assert not any('scopevit' in name or 'mkldnn' in name for name in operators)


@pytest.mark.slow
@FORMS
def test_export_for_one_size(deploy):
    model = build(deploy)
    program = torch.export.export(model, (IMAGES,))
    assert_equal(program.module()(IMAGES.flip(0)), model(IMAGES.flip(0)))
    assert_layers_are_steps(program, model)


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize('way', ['named', 'auto'])
def test_export_with_dynamic_sizes(deploy, way):
    """Named dimensions hold over their whole range."""
    model = build(deploy)
    named = dict(enumerate((Dim('batch', min=1, max=64), None, Dim('h', min=33, max=1024), Dim('w', min=33, max=1024))))
    dims = {i: named[i] if way == 'named' else Dim.AUTO for i in (0, 2, 3)}
    program = torch.export.export(model, (torch.zeros(2, 3, 200, 333),), dynamic_shapes=(dims,))
    for images in (IMAGES, formula_image(64, 333, batch=3).float()):
        assert_equal(program.module()(images), model(images))
    assert_layers_are_steps(program, model)


# Transforms


@FORMS
@pytest.mark.parametrize('randomness', ['error', 'different'])
@pytest.mark.filterwarnings('ignore:There is a performance drop')
@torch.no_grad()
def test_vmap_over_images(deploy, randomness):
    model = build(deploy)
    features = vmap(lambda image: model(image[None]), randomness=randomness)(IMAGES)
    assert_equal([x[:, 0] for x in features], model(IMAGES))


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_gradients_of_each_image():
    model = build()
    parameters = dict(model.named_parameters())

    def loss(parameters, image):
        return loss_of(functional_call(model, parameters, image[None]))

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, IMAGES)
    for i, image in enumerate(IMAGES):
        expected = torch.autograd.grad(loss(parameters, image), [*parameters.values()])
        for (name, gradient), wanted in zip(each.items(), expected):
            assert (gradient[i] - wanted).abs().max() <= 1e-3 * wanted.abs().max() + 1e-6, name


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_gradients_of_each_image_with_drop_path():
    """Each image draws for itself: alike images have gradients that differ, and some have none in a branch."""
    model = build(drop_path_rate=0.5, norm_eval=True).train()
    images = IMAGES[:1].expand(12, -1, -1, -1)

    def loss(parameters, image):
        return loss_of(functional_call(model, parameters, image[None]))

    torch.manual_seed(0)
    each = vmap(grad(loss), in_dims=(None, 0), randomness='different')(dict(model.named_parameters()), images)
    assert all(gradient.isfinite().all() for gradient in each.values())
    of_branch = each['stages.2.blocks.0.mssa.mlp.fc2.weight'].flatten(1).abs().amax(1)
    assert 0 < (of_branch == 0).sum() < 12


# What replaces layers


@FORMS
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
def test_dynamic_quantization(deploy):
    model = build(deploy)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    kinds = [type(m) for m in quantized.modules()]
    assert kinds.count(torch.ao.nn.quantized.dynamic.Linear) == sum(type(m) is nn.Linear for m in model.modules())
    assert kinds.count(nn.Linear) == 0
    features, expected = quantized(IMAGES), model(IMAGES)
    assert_equal(features, expected, 1.0)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(features, expected))


class Int8Weight(torch.Tensor):
    """A weight as torchao's quantization for weights alone leaves it: whole numbers that only F.linear can read."""

    @staticmethod
    def __new__(cls, weight):
        return torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)

    def __init__(self, weight):
        self.scale = weight.abs().amax(dim=1, keepdim=True) / 127
        self.numbers = (weight / self.scale).round().to(torch.int8)
        self.times_used = 0

    def values(self):
        return self.numbers * self.scale

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:
            x, weight, bias = args
            weight.times_used += 1
            return F.linear(x, weight.values(), bias)
        return super().__torch_function__(function, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:  # of nn.Parameter
            return args[0]
        raise NotImplementedError(f'{function} of an Int8Weight')


@FORMS
@torch.no_grad()
def test_weights_of_a_tensor_subclass(deploy):
    """Each linear layer multiplies by its own, and nothing else reads them."""
    model, plain = build(deploy), build(deploy)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, layer in layers.items():
        weight = Int8Weight(layer.weight)
        plain.get_submodule(name).weight.copy_(weight.values())
        layer.weight = nn.Parameter(weight, requires_grad=False)
    features = model(IMAGES)
    assert all(layer.weight.times_used == 1 for layer in layers.values())
    assert_equal(features, plain(IMAGES))
    before = build(deploy)(IMAGES)
    assert all((a - b).abs().max() > 1e-4 * b.std() for a, b in zip(features, before))
    assert_equal(features, before, 0.5)


class Adapter(nn.Module):
    """A low-rank adapter around a linear layer, which has no weight of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_adapters_around_linear_layers():
    model = build()
    expected = model(IMAGES)
    parents = [(m, name, c) for m in model.modules() for name, c in m.named_children() if type(c) is nn.Linear]
    for parent, name, layer in parents:
        setattr(parent, name, Adapter(layer))
    assert_equal(model(IMAGES), expected)
    loss_of(model.train()(IMAGES)).backward()
    adapters = [m for m in model.modules() if isinstance(m, Adapter)]
    assert len(adapters) == len(parents)
    assert all(adapter.up.weight.grad is not None for adapter in adapters)


@FORMS
def test_layers_are_of_pytorchs_types(deploy):
    """Tools match types: a subclass would be passed over."""
    for module in build(deploy).modules():
        for kind in (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d):
            assert not isinstance(module, kind) or type(module) is kind


@FORMS
@torch.no_grad()
def test_hooks_see_every_layer(deploy):
    """As those that count by the types of layers do."""
    model, seen = build(deploy), []
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.LayerNorm))]
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(module))
    model(IMAGES)
    assert set(seen) == set(layers)


class TokenMean(nn.Module):
    def forward(self, features):
        return features[0].mean((2, 3))


def macs_of_layers(model, images):
    """Of linear layers and convolutions, as tools count them that have hooks on layers."""
    macs = []

    def count(layer, inputs, output):
        of_an_element = layer.in_features if isinstance(layer, nn.Linear) else layer.weight[0].numel()
        macs.append(output.numel() * of_an_element)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    model(images)
    for hook in hooks:
        hook.remove()
    return sum(macs)


@pytest.mark.parametrize(('deploy', 'with_grad'), [(False, False), (False, True), (True, False)])
def test_flops_as_pytorch_counts_them(deploy, with_grad):
    """To the digit, with the paper's head: 2 x 1.955 GMACs for tiny at 256x256. Hooks see all but attention's."""
    macs, images = COUNTS['tiny']['macs_256'], torch.zeros(1, 3, 256, 256)
    model = nn.Sequential(ScopeViT('tiny', deploy=deploy), TokenMean(), nn.Linear(256, 1000)).eval()
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(with_grad):
        model(images)
    of_layers = macs_of_layers(model, images)
    assert counter.get_total_flops() == 2 * (of_layers + macs['matmul'])
    if not deploy:
        assert of_layers == macs['conv'] + macs['linear']


def test_full_backward_hooks():
    """Of every module, stochastic depth's too, which draws the same with them."""
    model, seen = build(drop_path_rate=0.5).train(), set()
    torch.manual_seed(0)
    expected = torch.autograd.grad(loss_of(model(IMAGES)), [*model.parameters()])
    names = {name for name, m in model.named_modules() if not isinstance(m, (nn.ModuleList, nn.ModuleDict))}
    for name in names:
        model.get_submodule(name).register_full_backward_hook(lambda *_, name=name: seen.add(name))
    torch.manual_seed(0)
    loss_of(model(IMAGES.clone().requires_grad_())).backward()
    assert seen == names
    for p, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-5)


# Building and keeping


@FORMS
@pytest.mark.parametrize('way', ['emptied', 'assigned'])
@torch.no_grad()
def test_built_on_the_meta_device(deploy, way):
    source = build(deploy)
    with torch.device('meta'):
        model = ScopeViT(NARROW, out_indices=(0, 1, 2), deploy=deploy).eval()
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert [x.shape for x in model(IMAGES.to('meta'))] == [x.shape for x in source(IMAGES)]
    if way == 'emptied':
        model.to_empty(device='cpu')
    model.load_state_dict(source.state_dict(), assign=True)
    assert_equal(model(IMAGES), source(IMAGES), 1e-6)


@FORMS
def test_an_empty_batch(deploy):
    model, images = build(deploy), torch.zeros(0, 3, 72, 100, requires_grad=True)
    with torch.no_grad():
        assert [tuple(x.shape) for x in model(images)] == [(0, 16, 18, 25), (0, 32, 9, 13), (0, 64, 5, 7)]
    for training in (False, True)[: 1 if deploy else 2]:
        loss = sum(x.sum() for x in model.train(training)(images))
        loss.backward()
        assert loss == 0
    assert images.grad.shape == images.shape
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers())


@FORMS
@torch.no_grad()
def test_copied_pickled_and_saved_whole(deploy):
    model = build(deploy)
    expected = model(IMAGES)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert_equal(other(IMAGES), expected, 1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_once_for_all_batches():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    for batch in (2, 3, 5, 4):
        images = formula_image(72, 100, batch=batch).float()
        assert_equal(compiled(images), model(images))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 2  # of one batch, and of all
