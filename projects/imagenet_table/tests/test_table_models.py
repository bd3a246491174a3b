"""The four backbones written here: the counts of their papers, sizes, gradients, and plain formulas of attention."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from projects.imagenet_table.models import P2T, EViT, EViTKeepRateHook, MPViT, Shunted
from projects.imagenet_table.models.evit import Attention, reorganise
from projects.imagenet_table.models.mpvit import FactorisedAttention, MPViTStage, RelativePosition
from projects.imagenet_table.models.p2t import ConvFeedForward, PoolingAttention
from projects.imagenet_table.models.shunted import DetailFeedForward, FullAttention, ShuntedAttention
from scopevit.analysis import count
from scopevit.utils.errors import UserError

ALL = (0, 1, 2, 3)
NARROW = {
    P2T: dict(
        embed_dims=(4, 8, 8, 12),
        num_heads=(1, 2, 2, 3),
        mlp_ratios=(2, 2, 2, 2),
        depths=(1, 2, 1, 1),
        pool_ratios=P2T.arch_settings['tiny']['pool_ratios'],
    ),
    Shunted: dict(
        embed_dims=(4, 8, 8, 12),
        num_heads=(2, 2, 4, 3),
        mlp_ratios=(2, 2, 2, 2),
        depths=(1, 2, 1, 1),
        reductions=(8, 4, 2, 1),
    ),
    MPViT: dict(embed_dims=(8, 16, 16, 24), num_paths=(2, 3, 1, 2), depths=(1, 2, 1, 1), mlp_ratios=(2, 2, 2, 2)),
}
NARROW_EVIT = dict(embed_dims=12, depth=4, num_heads=3, mlp_ratio=2)
pyramids = pytest.mark.parametrize('kind', NARROW, ids=lambda kind: kind.__name__)


# Counts: parameters and MACs of each part at 224 x 224, derived by hand from the papers' descriptions.
PARTS = {
    P2T: {
        'stages.0': (110_784, 336_974_400),
        'stages.1': (433_248, 321_805_440),
        'stages.2': (4_444_080, 796_685_760),
        'stages.3': (6_217_728, 333_019_008),
    },
    Shunted: {
        'stages.0.patch_embed': (26_112, 169_394_176),
        'stages.0': (26_112 + 416_960, 169_394_176 + 321_598_368),
        'stages.1': (1_414_016, 643_538_560),
        'stages.2': (4_823_296, 796_117_504),
        'stages.3': (4_360_192, 215_531_008),
    },
    MPViT: {
        'stages.0.0': (19_488, 68_640_768),
        'stages.0.1': (148_800, 464_228_352),
        'stages.1': (1_392_128, 1_112_502_272),
        'stages.2': (5_752_640, 1_155_753_984),
        'stages.3': (3_003_392, 148_834_560),
    },
}


@pytest.mark.parametrize(('kind', 'arch'), [(P2T, 'tiny'), (Shunted, 'tiny'), (MPViT, 'xsmall')])
def test_counts_and_shapes_are_those_of_the_paper(kind, arch):
    model = kind(arch, out_indices=ALL)
    counted = count(model, torch.zeros(1, 3, 224, 224))
    parts = {name: (counted.modules[name].parameters, counted.modules[name].macs) for name in PARTS[kind]}
    assert parts == PARTS[kind]
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        shapes = [tuple(x.shape) for x in model.eval()(torch.zeros(1, 3, 224, 224))]
    channels = (128, 192, 256, 256) if kind is MPViT else kind.arch_settings[arch]['embed_dims']
    assert shapes == [(1, c, side, side) for c, side in zip(channels, (56, 28, 14, 7))]
    assert model.feature_channels == tuple(channels)
    assert model.feature_strides == (4, 8, 16, 32)


@pytest.mark.parametrize(('fuse', 'tokens'), [(True, (257, 156, 95, 59)), (False, (257, 155, 94, 57))])
def test_evit_tokens_and_counts(fuse, tokens):
    model = EViT(img_size=256, keep_rate=0.6, fuse_tokens=fuse)
    counted = count(model, torch.zeros(1, 3, 256, 256))
    assert counted.parameters + 385 * 1000 == 22_073_704
    assert counted.macs + 384 * 1000 == (3_487_651_584 if fuse else 3_466_089_216)
    # Reorganised before the MLP of blocks 4, 7 and 10.
    after = [tokens[sum(i >= at for at in (3, 6, 9))] for i in range(12)]
    before = [257, *after[:-1]]
    c = 384
    for i, (n, m) in enumerate(zip(before, after)):
        assert counted.modules[f'blocks.{i}'].macs == n * 4 * c**2 + 2 * n**2 * c + m * 8 * c**2
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    with torch.no_grad():
        (token,) = model.eval()(torch.rand(1, 3, 256, 256))
    assert seen == after
    assert token.shape == (1, 384)


# Sizes, gradients, options


@pyramids
@pytest.mark.parametrize('size', [(1, 1), (7, 33), (37, 53), (64, 97)])
def test_any_size(kind, size):
    model = kind(NARROW[kind], out_indices=ALL, in_channels=1).eval()
    with torch.no_grad():
        maps = model(torch.rand(2, 1, *size))
    for i, (x, channels) in enumerate(zip(maps, model.feature_channels)):
        assert x.shape == (2, channels, *(math.ceil(side / 2 ** (i + 2)) for side in size))
        assert x.isfinite().all()
        assert x.is_contiguous()


@pyramids
def test_pixels_at_the_edge_are_seen(kind):
    """What does not fill a window of 4, 8, ... pixels still changes the output."""
    model = kind(NARROW[kind]).eval().double()
    image = torch.rand(1, 3, 37, 45, dtype=torch.float64)
    other = image.clone()
    other[..., -1, -1] += 10
    with torch.no_grad():
        assert (model(image)[0] - model(other)[0]).abs().max() > 0


@pyramids
def test_every_parameter_gets_a_gradient(kind):
    torch.manual_seed(0)
    model = kind(NARROW[kind], out_indices=ALL, drop_path_rate=0.1).train()
    sum(x.square().mean() for x in model(torch.rand(4, 3, 70, 66))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # The bias of a key does not change a softmax.
        assert parameter.grad.any() or re.search('(qkv|kv|k).bias', name), name


@pytest.mark.parametrize('fuse', [True, False])
def test_every_parameter_of_evit_gets_a_gradient(fuse):
    model = EViT(NARROW_EVIT, img_size=64, fuse_tokens=fuse, reorganise_at=(1, 2), drop_path_rate=0.1).train()
    model(torch.rand(4, 3, 64, 64))[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # The bias of a key does not change a softmax.
        assert parameter.grad.any() or re.search('(qkv|kv|k).bias', name), name


@pyramids
def test_weights_begin_as_documented(kind):
    torch.manual_seed(0)
    model = kind(next(iter(kind.arch_settings)), out_indices=ALL)
    weights = [module.weight.detach() for module in model.modules() if isinstance(module, nn.Linear)]
    assert torch.cat([weight.flatten() for weight in weights]).std().item() == pytest.approx(0.02, rel=0.02)
    assert not any(module.bias.any() for module in model.modules() if isinstance(module, nn.Linear))
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} <= {1e-6, 1e-5}
    if kind is MPViT:  # uniform up to 1/3, for 3x3
        shared = [name for name, _ in model.named_parameters() if name.endswith('conditional.weight')]
        largest = max(model.get_parameter(name).abs().max() for name in shared)
        assert 0.3 < largest <= 1 / 3


@pyramids
def test_later_stages_are_not_built(kind):
    torch.manual_seed(0)
    dense = kind(NARROW[kind], out_indices=ALL).eval()
    part = kind(NARROW[kind], out_indices=(0, -3)).eval()
    assert len(part.stages) == 2
    assert part.feature_strides == (4, 8)
    weights = {name: value for name, value in dense.state_dict().items() if name in part.state_dict()}
    part.load_state_dict(weights)
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        for x, y in zip(part(image), dense(image)):
            assert torch.equal(x, y)


def test_evit_at_other_sizes():
    model = EViT(NARROW_EVIT, img_size=64, reorganise_at=(1,)).eval()
    with torch.no_grad():
        for size in ((16, 16), (70, 33), (64, 128)):
            assert model(torch.rand(2, 3, *size))[0].shape == (2, 12)
        assert torch.equal(model._position((4, 4)), model.pos_embed)
        # A constant position stays constant on any grid.
        model.pos_embed[:, 1:] = 0.5
        assert model._position((3, 7))[:, 1:] == pytest.approx(torch.full((1, 21, 12), 0.5), abs=1e-6)
        # One that grows from row to row still does, and is the same along each.
        model.pos_embed[:, 1:] = torch.arange(4.0).repeat_interleave(4)[:, None]
        grid = model._position((8, 3))[:, 1:].unflatten(1, (8, 3))
        assert (grid.diff(dim=1) > 0).all()
        assert grid.diff(dim=2).abs().max() < 1e-5
    with pytest.raises(ValueError, match='one patch'):
        model(torch.rand(1, 3, 15, 64))


@pyramids
def test_bad_options(kind):
    with pytest.raises(ValueError, match='unknown arch'):
        kind('huge')
    with pytest.raises(ValueError, match='one value for each stage'):
        kind(dict(NARROW[kind], depths=(1, 1)))
    with pytest.raises(ValueError, match='one value for each stage'):
        kind(dict(embed_dims=(8, 8, 8, 8)))
    with pytest.raises(ValueError, match='one value for each stage'):
        kind(dict(NARROW[kind], embed_dims=8))
    for indices in ((), (4,), (1, 0), (0, 0), (-5,)):
        with pytest.raises(ValueError, match='out_indices'):
            kind(NARROW[kind], out_indices=indices)
    with pytest.raises(ValueError, match='drop_path_rate'):
        kind(NARROW[kind], drop_path_rate=1.0)
    with pytest.raises(TypeError, match='out_indexes'):
        kind(NARROW[kind], out_indexes=(3,))


def test_bad_widths_heads_and_reductions():
    for changed in (dict(reductions=(8, 3, 2, 1)), dict(reductions=(8, 4, 0, 1)), dict(num_heads=(2, 1, 4, 3))):
        with pytest.raises(ValueError, match='reduction of Shunted must be 1, or even with an even number of heads'):
            Shunted(dict(NARROW[Shunted], **changed))
    for build in (
        lambda: P2T(dict(NARROW[P2T], num_heads=(3, 3, 3, 3))),
        lambda: Shunted(dict(NARROW[Shunted], num_heads=(6, 6, 6, 6))),
        lambda: EViT(dict(NARROW_EVIT, num_heads=5), reorganise_at=()),
    ):
        with pytest.raises(ValueError, match='multiples of their num_heads'):
            build()
    with pytest.raises(ValueError, match='multiples of 8, its heads, but one is 12'):
        MPViT(dict(NARROW[MPViT], embed_dims=(8, 12, 16, 24)))


def test_bad_options_of_evit():
    for options, words in (
        (dict(arch='huge'), 'unknown arch'),
        (dict(arch=dict(depth=2)), 'must have'),
        (dict(keep_rate=0.0), 'keep_rate'),
        (dict(keep_rate=1.5), 'keep_rate'),
        (dict(reorganise_at=(12,)), 'from 0 to 11'),
    ):
        with pytest.raises(ValueError, match=words):
            EViT(**options)


# Attention, against plain formulas


def plain_attention(q, k, v, num_heads):
    """Softmax attention of (N, C) and (M, C), head by head."""
    d = q.shape[1] // num_heads
    heads = []
    for h in range(num_heads):
        part = slice(h * d, (h + 1) * d)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(d)).exp()
        heads.append(weights @ v[:, part] / weights.sum(dim=1, keepdim=True))
    return torch.cat(heads, dim=1)


def plain_depthwise(image, conv):
    """A depthwise convolution of (H, W, C), as a sum of shifted images."""
    height, width, _ = image.shape
    size = conv.kernel_size[0]
    padded = nn.functional.pad(image, (0, 0, size // 2, size // 2, size // 2, size // 2))
    out = torch.zeros_like(image) + conv.bias
    for i in range(size):
        for j in range(size):
            out += padded[i : i + height, j : j + width] * conv.weight[:, 0, i, j]
    return out


def plain_norm(x, norm):
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def random_module(module):
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def image_of(height, width, dim):
    torch.manual_seed(1)
    return torch.randn(1, height, width, dim, dtype=torch.float64)


@torch.no_grad()
def test_p2t_attention_is_its_formula():
    module = random_module(PoolingAttention(6, 2, (2, 4)))
    convs = random_module(nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, groups=6) for _ in range(2)))
    x = image_of(5, 7, 6)
    tokens = []
    # 5/2 = 2.5 and 7/2 = 3.5 are rounded to the even 2 and 4; 5/4 to 1, 7/4 to 2.
    for (rows, columns), conv in zip(((2, 4), (1, 2)), convs):
        pool = torch.zeros(rows, columns, 6, dtype=torch.float64)
        for i in range(rows):
            for j in range(columns):
                cell = x[0, i * 5 // rows : -(-(i + 1) * 5 // rows), j * 7 // columns : -(-(j + 1) * 7 // columns)]
                pool[i, j] = cell.mean(dim=(0, 1))
        tokens.append((pool + plain_depthwise(pool, conv)).flatten(0, 1))
    pooled = module.kv(plain_norm(torch.cat(tokens), module.norm))
    expected = module.proj(plain_attention(module.q(x[0]).flatten(0, 1), pooled[:, :6], pooled[:, 6:], 2))
    assert module(x, convs)[0].flatten(0, 1) == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_shunted_attention_is_its_formula():
    module = random_module(ShuntedAttention(8, 4, 4))
    x = image_of(6, 9, 8)  # not a multiple of 4, nor 9 of 2
    queries = module.q(x[0]).flatten(0, 1)
    halves = []
    for part, keys, size in ((slice(0, 4), module.coarse, 4), (slice(4, 8), module.fine, 2)):
        rows, columns = -(-6 // size), -(-9 // size)
        merged = torch.zeros(rows, columns, 8, dtype=torch.float64)
        for i in range(rows):
            for j in range(columns):
                square = x[0, i * size : (i + 1) * size, j * size : (j + 1) * size]
                weight = keys.merge.weight[:, :, : square.shape[0], : square.shape[1]]
                merged[i, j] = torch.einsum('ocij,ijc->o', weight, square) + keys.merge.bias
        merged = plain_norm(merged, keys.norm)
        merged = keys.kv(merged * (1 + (merged / math.sqrt(2)).erf()) / 2)
        v = merged[..., 4:] + plain_depthwise(merged[..., 4:], keys.local)
        k, v = merged[..., :4].flatten(0, 1), v.flatten(0, 1)
        halves.append(plain_attention(queries[:, part], k, v, 2))
    expected = module.proj(torch.cat(halves, dim=1))
    assert module(x)[0].flatten(0, 1) == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_shunted_full_attention_is_its_formula():
    module = random_module(FullAttention(6, 3))
    x = image_of(3, 4, 6)
    kv = module.kv(x[0])
    attended = plain_attention(*(t.flatten(0, 1) for t in (module.q(x[0]), kv[..., :6], kv[..., 6:])), 3)
    expected = module.proj(attended + plain_depthwise(kv[..., 6:], module.local).flatten(0, 1))
    assert module(x)[0].flatten(0, 1) == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_mpvit_attention_is_its_formula():
    module, position = random_module(FactorisedAttention(16)), random_module(RelativePosition(16))
    x = image_of(5, 6, 16)
    q, k, v = module.qkv(x[0]).chunk(3, dim=-1)
    assert [conv.kernel_size[0] for conv in position.convs] == [3, 5, 7]
    convolved = torch.cat(
        [plain_depthwise(part, conv) for part, conv in zip(v.split([4, 6, 6], dim=-1), position.convs)], dim=-1
    )
    expected = torch.zeros(5, 6, 16, dtype=torch.float64)
    for h in range(8):
        part = slice(2 * h, 2 * h + 2)
        weights = k[..., part].exp() / k[..., part].exp().sum(dim=(0, 1))
        context = torch.einsum('ijc,ijd->cd', weights, v[..., part])
        expected[..., part] = q[..., part] @ context / math.sqrt(2) + q[..., part] * convolved[..., part]
    assert module(x, position)[0] == pytest.approx(module.proj(expected), abs=1e-12)


@torch.no_grad()
def test_evit_attention_and_its_scores_are_their_formulas():
    module = random_module(Attention(6, 3))
    x = image_of(1, 9, 6)[0]
    q, k, v = module.qkv(x[0]).chunk(3, dim=-1)
    expected = module.proj(plain_attention(q, k, v, 3))
    attended, scores = module.with_scores(x)
    assert attended[0] == pytest.approx(expected, abs=1e-12)
    assert module(x)[0] == pytest.approx(expected, abs=1e-12)
    paid = 0
    for h in range(3):
        weights = (k[:, 2 * h : 2 * h + 2] @ q[0, 2 * h : 2 * h + 2] / math.sqrt(2)).exp()
        paid = paid + weights / weights.sum() / 3
    assert scores[0] == pytest.approx(paid[1:], abs=1e-12)


# What is around attention, against plain formulas


def plain_conv(image, conv):
    return nn.functional.conv2d(image, conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)


def plain_batch_norm(image, norm):
    mean, var, weight, bias = (x[:, None, None] for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (image - mean) / (var + norm.eps).sqrt() * weight + bias


def hardswish(x):
    return x * (x + 3).clamp(0, 6) / 6


def gelu(x):
    return x * (1 + (x / math.sqrt(2)).erf()) / 2


@torch.no_grad()
def test_feed_forward_of_p2t_is_its_formula():
    module = random_module(ConvFeedForward(4, 6))
    x = image_of(3, 5, 4)
    widen, _, conv, _, narrow = module
    hidden = hardswish(x[0] @ widen.weight[:, :, 0, 0].T + widen.bias)
    expected = hardswish(plain_depthwise(hidden, conv)) @ narrow.weight[:, :, 0, 0].T + narrow.bias
    assert module(x)[0] == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_feed_forward_of_shunted_is_its_formula():
    module = random_module(DetailFeedForward(4, 6))
    x = image_of(3, 5, 4)
    hidden = module.fc1(x[0])
    expected = module.fc2(gelu(hidden + plain_depthwise(hidden, module.local)))
    assert module(x)[0] == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_stage_of_mpvit_is_its_formula():
    stage = random_module(MPViTStage(8, 5, num_paths=3, stride=2, mlp_ratio=2, drop_paths=(0.0, 0.0))).eval()
    for norm in (module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    image = image_of(6, 7, 8).permute(0, 3, 1, 2)

    embedded = [image]  # each path from the one before
    for depthwise, pointwise, norm, _ in stage.patch_embeds:
        embedded.append(hardswish(plain_batch_norm(plain_conv(plain_conv(embedded[-1], depthwise), pointwise), norm)))
    assert [tuple(x.shape[2:]) for x in embedded] == [(6, 7), (3, 4), (3, 4), (3, 4)]

    first, norm1, _, middle, norm2, _, last, norm3 = stage.local.conv
    local = hardswish(plain_batch_norm(plain_conv(embedded[1], first), norm1))
    local = hardswish(plain_batch_norm(plain_conv(local, middle), norm2))
    paths = [embedded[1] + plain_batch_norm(plain_conv(local, last), norm3)]
    for x, encoder in zip(embedded[1:], stage.encoders):
        for layer in encoder.layers:  # with the same position encodings
            x = (x + plain_conv(x, encoder.conditional)).permute(0, 2, 3, 1)
            x = x + layer.attn(plain_norm(x, layer.norm1), encoder.relative)
            x = x + layer.mlp.fc2(gelu(layer.mlp.fc1(plain_norm(x, layer.norm2))))
            x = x.permute(0, 3, 1, 2)
        paths.append(x)

    conv, norm, _ = stage.aggregate
    expected = hardswish(plain_batch_norm(plain_conv(torch.cat(paths, dim=1), conv), norm))
    assert stage(image) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize('fuse', [True, False])
def test_reorganised_tokens(fuse):
    x = image_of(2, 6, 4).flatten(0, 1)  # 5 patches in each of 2 images
    scores = torch.tensor([[0.1, 0.3, 0.2, 0.25, 0.05], [0.5, 0.1, 0.15, 0.05, 0.12]], dtype=torch.float64)
    out = reorganise(x, scores, 0.5, fuse)  # ceil(2.5) = 3 are kept
    for tokens, (best, others), image, paid in zip(out, (([1, 3, 2], [0, 4]), ([0, 2, 4], [1, 3])), x, scores):
        expected = [image[0], *(image[1 + i] for i in best)]
        if fuse:
            expected.append(sum(paid[i] * image[1 + i] for i in others))
        assert tokens == pytest.approx(torch.stack(expected), abs=1e-12)
    assert reorganise(x, scores, 1.0, fuse) is x


# EViT's keep rate in training


def test_keep_rate_falls_in_training_and_is_fixed_in_evaluation():
    model = EViT(NARROW_EVIT, img_size=64, keep_rate=0.5, reorganise_at=(1,))
    hook = EViTKeepRateHook(begin=0.2, end=0.6)
    rates = []
    for iteration in range(11):
        runner = SimpleNamespace(model=SimpleNamespace(backbone=model), iter=iteration, max_iters=10)
        hook.before_train_iter(runner, 0)
        rates.append(model.training_keep_rate)
    assert rates[:3] == [1.0, 1.0, 1.0]
    assert rates[4] == pytest.approx(0.75)
    assert rates[6:] == [0.5] * 5
    assert rates == sorted(rates, reverse=True)

    model.training_keep_rate = 1.0
    seen = []
    model.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    image = torch.rand(1, 3, 64, 64)
    model.train()(image)
    model.eval()(image)
    assert seen == [17, 10]


def test_bad_use_of_the_hook():
    for begin, end in ((0.5, 0.5), (-0.1, 0.5), (0.1, 10)):
        with pytest.raises(UserError, match='parts of the training'):
            EViTKeepRateHook(begin, end)
    runner = SimpleNamespace(model=nn.Linear(1, 1), iter=0, max_iters=1)
    with pytest.raises(UserError, match='EViT backbone'):
        EViTKeepRateHook(0.1, 0.5).before_train_iter(runner, 0)
    runner.model = SimpleNamespace(backbone=nn.Identity())
    with pytest.raises(UserError, match='but it is Identity'):
        EViTKeepRateHook(0.1, 0.5).before_train_iter(runner, 0)
