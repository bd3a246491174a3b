"""The ScopeViT backbone: the function it computes, and its contract with the toolboxes."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.model.weight_init import PretrainedInit

from reference.plain_scopevit import PlainScopeViT
from reference.weights import fill, formula_image
from scopevit.models import ScopeViT
from scopevit.models.backbones.arch import default_scope_heads

DATA = Path(__file__).parents[1] / 'data'
NARROW = dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4))
FIVE_STAGES = dict(
    embed_dims=(8, 24, 16, 32, 32),
    depths=(1, 1, 1, 1, 1),
    num_heads=(1, 3, 2, 4, 8),
    scope_heads=((0, 1, 0), (1, 1, 1), (0, 0, 2), (1, 0, 3), (4, 3, 1)),
    kv_strides=(4, 3, 2, 2, 1),
    grid_size=5,
    mlp_ratio=2,
    cpe_expansion=3,
)


def relative_difference(a, b):
    """Largest difference in units of the map's standard deviation (of 1 where a map has one value)."""
    scale = b.std(unbiased=False).item() if b.numel() > 1 else 1.0
    return (a - b).abs().max().item() / max(scale, 1e-3)


def all_stages(arch):
    return tuple(range(len((arch if isinstance(arch, dict) else ScopeViT.arch_settings[arch])['depths'])))


def build(arch=NARROW, dtype=torch.float32, **options):
    """A backbone with all stages out and weights for which every part matters."""
    options.setdefault('out_indices', all_stages(arch))
    return fill(ScopeViT(arch, **options)).to(dtype).eval()


@pytest.mark.parametrize('arch', ['xtiny', 'tiny', 'small'])
def test_parameter_counts(arch):
    counts = json.loads((DATA / 'counts.json').read_text())[arch]
    model = ScopeViT(arch)
    assert sum(p.numel() for p in model.parameters()) == counts['backbone']
    for i, stage in enumerate(model.stages):
        expected = counts[f'stage{i + 1}']
        assert sum(p.numel() for p in stage.patch_embed.parameters()) == expected['patch_embed']
        assert sum(p.numel() for p in stage.blocks.parameters()) == expected['blocks']
        assert sum(p.numel() for p in stage.norm.parameters()) == expected['out_norm']
    head = (model.feature_channels[-1] + 1) * 1000
    assert counts['backbone'] + head == counts['total_with_1000_way_head']
    block = model.stages[0].blocks[0]
    assert sum(p.numel() for p in block.mssa.parameters()) == counts['first_block']['mssa']
    assert sum(p.numel() for p in block.gsda.parameters()) == counts['first_block']['gsda']


# The plain implementation is quadratic in Python loops; the big sizes are tested once, on narrow stages.
SIZES = [(1, 1), (7, 9), (32, 32), (33, 65), (224, 224), (256, 192), (200, 333), (256, 256), (8, 300)]


@pytest.mark.parametrize('size', SIZES, ids=lambda s: f'{s[0]}x{s[1]}')
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('arch', [NARROW, FIVE_STAGES], ids=['narrow', 'five_stages'])
@torch.no_grad()
def test_equals_plain_implementation(arch, size, batch):
    model = build(arch, torch.float64)
    plain = PlainScopeViT(model.state_dict(), vars(ScopeViT.parse_arch(arch)))
    image = formula_image(*size, batch=batch)
    for fast, slow in zip(model(image), plain(image)):
        assert fast.shape == slow.shape
        assert relative_difference(fast, slow) < 1e-8


@pytest.mark.parametrize(('arch', 'batch'), [('xtiny', 3), ('tiny', 1), ('small', 1)])
@torch.no_grad()
def test_variants_equal_plain_implementation(arch, batch):
    model = build(arch, torch.float64)
    plain = PlainScopeViT(model.state_dict(), vars(ScopeViT.parse_arch(arch)))
    image = formula_image(72, 100, batch=batch)
    for fast, slow in zip(model(image), plain(image)):
        assert relative_difference(fast, slow) < 1e-8


@torch.no_grad()
def test_float32_equals_float64():
    image = formula_image(200, 333)
    single = build('xtiny')(image.float())
    for a, b in zip(single, build('xtiny', torch.float64)(image)):
        assert relative_difference(a.double(), b) < 2e-4


@pytest.mark.parametrize('size', [(33, 65), (100, 40)])
@torch.no_grad()
def test_independent_of_values_inside_the_padding(size, monkeypatch):
    model, image = build(), formula_image(*size).float()
    expected = model(image)
    pad, calls = F.pad, []

    def pad_with_noise(x, padding):
        calls.append(padding)
        mask = pad(torch.ones_like(x), padding)
        return torch.where(mask.bool(), pad(x, padding), torch.full_like(mask, 1e4))

    monkeypatch.setattr(F, 'pad', pad_with_noise)
    for a, b in zip(model(image), expected):
        assert relative_difference(a, b) < 1e-5
    assert calls


@torch.no_grad()
def test_independent_of_batch_mates():
    model = build()
    images = torch.cat([formula_image(33, 65), formula_image(33, 65).flip(-1) * 50, formula_image(33, 65) * 0])
    alone = [model(image[None].float()) for image in images]
    for stage, together in enumerate(model(images.float())):
        for i in range(len(images)):
            assert relative_difference(together[i : i + 1], alone[i][stage]) < 1e-4


@torch.no_grad()
def test_memory_layout_of_the_input_does_not_matter():
    model, image = build(), formula_image(64, 48, batch=2).float()
    for a, b in zip(model(image.contiguous(memory_format=torch.channels_last)), model(image)):
        assert relative_difference(a, b) < 1e-5


# A parameter that cannot have a gradient: a bias that the next operation cancels.
CANCELLED = ('rel_pos.fc2.bias', 'patch_embed.0.bias', 'patch_embed.3.bias')


@pytest.mark.parametrize('out_indices', [(3,), (0, 1, 2, 3), (1, 2, 3), (0,)], ids=str)
def test_every_parameter_has_a_gradient(out_indices):
    model = build(out_indices=out_indices, rel_pos_drop=0.0).train()
    outputs = model(formula_image(64, 96, batch=2).float())
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith(CANCELLED):
            assert parameter.grad.abs().max() > 0, name


def test_gradients_are_finite_where_the_grid_is_padded():
    model = build().train()
    sum(x.sum() for x in model(formula_image(37, 70, batch=2).float())).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('drop', [0.0, 0.3])
def test_checkpointing_changes_nothing(drop):
    results = []
    for with_cp in (False, True):
        model = build(NARROW, torch.float64, with_cp=with_cp, drop_path_rate=drop, rel_pos_drop=drop)
        model.train()
        torch.manual_seed(0)
        outputs = model(formula_image(64, 72, batch=2).requires_grad_())
        sum((x**2).sum() for x in outputs).backward()
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        results.append((outputs, {name: p.grad for name, p in model.named_parameters()}, buffers))
    (outputs, grads, buffers), (cp_outputs, cp_grads, cp_buffers) = results
    for a, b in zip(outputs, cp_outputs):
        assert relative_difference(a, b) < 1e-10
    for name in grads:
        torch.testing.assert_close(cp_grads[name], grads[name], rtol=1e-8, atol=1e-8)
    for name in buffers:  # running statistics count every batch once
        torch.testing.assert_close(cp_buffers[name], buffers[name])


def test_checkpointed_graph_is_run_backwards_twice():
    model = build(with_cp=True).train()
    loss = model(formula_image(64, 64, batch=2).float())[-1].sum()
    loss.backward(retain_graph=True)
    once = model.stages[0].blocks[0].mssa.mlp.fc1.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(model.stages[0].blocks[0].mssa.mlp.fc1.weight.grad, 2 * once)


def test_checkpointing_with_synchronised_batch_norm():
    """SyncBatchNorm insists on its counter; outside several processes it computes as BatchNorm."""
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build(with_cp=True)).train()
    norm = model.stages[0].blocks[0].mssa.attn.cpe.expand[1]
    before = norm.num_batches_tracked.clone()
    outputs = []
    for module in model.modules():
        if isinstance(module, torch.nn.SyncBatchNorm):  # on the CPU it asks for a GPU unless evaluated
            module.forward = torch.nn.BatchNorm2d.forward.__get__(module)
            module.register_forward_pre_hook(lambda m, _: outputs.append(m.num_batches_tracked is not None))
    model(formula_image(64, 64, batch=2).float())[-1].sum().backward()
    assert all(outputs)
    assert norm.num_batches_tracked == before + 1


def test_default_scope_heads_are_the_papers():
    assert [default_scope_heads(h) for h in (2, 4, 8, 16)] == [(1, 1, 0), (2, 1, 1), (4, 3, 1), (8, 6, 2)]
    for heads in range(1, 40):
        scopes = default_scope_heads(heads)
        assert sum(scopes) == heads
        assert min(scopes) >= 0


def test_pretrained_init_cfg_is_checked(tmp_path):
    source = build()
    torch.save({f'backbone.{key}': value for key, value in source.state_dict().items()}, tmp_path / 'c.pth')
    target = ScopeViT(NARROW, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth'), prefix='backbone'))
    target.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters()))
    with pytest.raises(RuntimeError, match='does not fit the backbone'):
        ScopeViT('xtiny', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth'))).init_weights()


def test_init_cfg_may_be_a_list_in_which_a_checkpoint_comes_last(tmp_path):
    """Read as :func:`load_backbone` does, also where MMEngine's class is named."""
    source = build()
    torch.save(source.state_dict(), tmp_path / 'c.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth'))
    ones = dict(type='Constant', layer='Linear', val=1.0)
    for init_cfg in ([pretrained], [pretrained, ones], [dict(pretrained, type=PretrainedInit), ones]):
        target = ScopeViT(NARROW, init_cfg=init_cfg)
        target.init_weights()
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters()))
        assert target.init_cfg == init_cfg
    target = ScopeViT(NARROW, init_cfg=[ones])
    target.init_weights()
    assert all(bool((m.weight == 1).all()) for m in target.modules() if isinstance(m, torch.nn.Linear))


@torch.no_grad()
def test_shared_stages_do_not_depend_on_out_indices():
    full, image = build(), formula_image(64, 64).float()
    expected = full(image)
    for out_indices in [(0,), (2,), (1, 3), (-1,), (-3, -2)]:
        part = ScopeViT(NARROW, out_indices=out_indices, drop_path_rate=0.4).eval()
        part.load_state_dict(full.state_dict(), strict=False)
        assert set(part.state_dict()) <= set(full.state_dict())
        for i, feature in zip(part.out_indices, part(image)):
            torch.testing.assert_close(feature, expected[i], rtol=0, atol=0)
    rates = [m.rate for m in ScopeViT(NARROW, out_indices=(1,), drop_path_rate=0.4).modules() if hasattr(m, 'rate')]
    assert max(rates) == pytest.approx(0.1)  # the second of five blocks, built or not


def test_stages_after_the_last_wanted_are_not_built():
    model = ScopeViT('tiny', out_indices=(0, 1))
    assert len(model.stages) == 2


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3, 4), (1, 4), (-1,)], ids=str)
@torch.no_grad()
def test_declared_channels_and_strides(out_indices):
    model = ScopeViT(FIVE_STAGES, out_indices=out_indices).eval()
    features = model(torch.zeros(1, 3, 128, 192))
    assert isinstance(features, tuple)
    assert tuple(x.shape[1] for x in features) == model.feature_channels
    assert tuple(128 // x.shape[2] for x in features) == model.feature_strides
    assert tuple(192 // x.shape[3] for x in features) == model.feature_strides


def test_frozen_stages_stay_frozen():
    model = ScopeViT(NARROW, out_indices=(0, 1, 2, 3), frozen_stages=2)
    before = copy.deepcopy(model.state_dict())
    assert model.train() is model
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum((x * torch.randn_like(x)).sum() for x in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(('stages.0.', 'stages.1.')) for name in changed)
    assert any(name.startswith('stages.2.') for name in changed)
    assert all(not p.requires_grad for stage in model.stages[:2] for p in stage.parameters())
    assert all(p.requires_grad for p in model.stages[2].parameters())


def test_norm_eval_keeps_running_statistics():
    model = ScopeViT(NARROW, norm_eval=True).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert model.stages[0].blocks[0].training


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    from scopevit.models.layers import DropPath

    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    y = DropPath(0.25).train()(x)
    per_sample = y.flatten(1)
    assert ((per_sample == 0).all(1) | (per_sample == 1 / 0.75).all(1)).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    assert DropPath(0.25).eval()(x) is x


def test_initialisation():
    torch.manual_seed(0)
    model = ScopeViT('tiny')
    for name, p in model.named_parameters():
        if name.endswith('gamma'):
            assert (p == 1e-6).all()
        elif name.endswith('bias'):
            assert (p == 0).all(), name
    block = model.stages[3].blocks[0]
    assert block.gsda.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    expand = block.mssa.attn.cpe.expand[0].weight  # 1x1, 256 -> 1024
    assert expand.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)
    depthwise = block.mssa.attn.cpe.depthwise[0].weight  # 3x3, one channel each
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_layer_depths():
    model = ScopeViT('tiny')  # 2 + 2 + 5 + 2 blocks
    depth = lambda name: model.get_layer_depth(f'backbone.{name}', 'backbone.')  # noqa: E731
    assert depth('stages.0.patch_embed.3.weight') == (0, 13)
    assert depth('stages.0.blocks.0.mssa.norm1.weight') == (1, 13)
    assert depth('stages.0.norm.bias') == (2, 13)
    assert depth('stages.1.patch_embed.0.weight') == (3, 13)
    assert depth('stages.2.blocks.4.gsda.attn.qkv.weight') == (9, 13)
    assert depth('stages.3.norm.weight') == (11, 13)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (12, 13)


@pytest.mark.parametrize(
    ('options', 'error', 'says'),
    [
        (dict(arch='huge'), ValueError, 'xtiny, tiny, small'),
        (dict(arch=dict(embed_dims=(8,), depths=(1,))), TypeError, 'num_heads'),
        (dict(arch=dict(NARROW, widths=1)), TypeError, 'widths'),
        (dict(arch=dict(NARROW, depths=(1, 1))), ValueError, 'one value per stage'),
        (dict(arch=dict(NARROW, num_heads=(3, 2, 4, 4))), ValueError, 'does not divide'),
        (dict(arch=dict(NARROW, scope_heads=((1, 0, 0),) * 4)), ValueError, 'add up to'),
        (dict(arch=dict(NARROW, grid_size=0)), ValueError, 'grid_size'),
        (dict(arch=dict(NARROW, cpe_expansion=1.5)), ValueError, 'cpe_expansion'),
        (dict(arch=dict(NARROW, depths=1)), ValueError, 'depths must have one value per stage'),
        (dict(arch=dict(NARROW, embed_dims=(1, 32, 32, 64))), ValueError, 'embed_dims 1 is less than 2'),
        (dict(arch=None), ValueError, 'unknown arch None'),
        (dict(drop_path_rate=1.0), ValueError, 'drop_path_rate'),
        (dict(rel_pos_drop=-0.1), ValueError, 'rel_pos_drop'),
        (dict(max_keys=0), ValueError, 'max_keys'),
        (dict(out_indices='3'), ValueError, 'out_indices'),
        (dict(out_indices=True), ValueError, 'out_indices'),
        (dict(out_indices=(4,)), ValueError, 'between -4 and 3'),
        (dict(out_indices=(2, 1)), ValueError, 'ascending'),
        (dict(out_indices=(3, -1)), ValueError, 'unique'),
        (dict(out_indices=()), ValueError, 'out_indices'),
        (dict(frozen_stages=5), ValueError, 'between -1 and 4'),
        (dict(out_indices=(1,), frozen_stages=3), ValueError, 'between -1 and 2'),
        (dict(drop_path=0.1), TypeError, "'drop_path'"),
        (dict(pretrained='x.pth'), TypeError, 'pretrained'),
    ],
)
def test_wrong_options_are_named(options, error, says):
    with pytest.raises(error, match=says):
        ScopeViT(**options)


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 4, 32, 32), (1, 3, 0, 32), (1, 3, 4, 32, 32)], ids=str)
def test_wrong_inputs_are_named(shape):
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\)'):
        ScopeViT(NARROW)(torch.zeros(shape))


def test_options_of_the_caller_are_not_changed():
    arch = dict(NARROW, embed_dims=[16, 32, 32, 64], scope_heads=[[1, 0, 0], [1, 1, 0], [2, 1, 1], [2, 1, 1]])
    out_indices = [-2, -1]
    before = copy.deepcopy(arch)
    ScopeViT(arch, out_indices=out_indices)
    assert arch == before
    assert out_indices == [-2, -1]


def test_model_can_be_copied_and_pickled(tmp_path):
    import pickle

    model = build()
    image = formula_image(40, 40).float()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(image), model(image))


def test_imports_with_torch_and_mmengine_alone_and_prints_nothing():
    """Any other toolbox or vision library being imported is an error; so is any output."""
    script = (
        'import sys\n'
        "for name in ('mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'mmpose', 'timm', 'torchvision', 'transformers'):\n"
        '    sys.modules[name] = None\n'  # importing it raises ImportError
        'from scopevit.models import ScopeViT\n'
        'import scopevit.engine, torch\n'
        "assert ScopeViT('xtiny')(torch.zeros(2, 3, 32, 32))[0].shape == (2, 256, 1, 1)\n"
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ''
    assert result.stderr == ''


@pytest.mark.gpu
def test_gpu_equals_cpu():
    image = formula_image(200, 333, batch=2).float()
    expected = build('xtiny')(image)
    for a, b in zip(build('xtiny').cuda()(image.cuda()), expected):
        assert relative_difference(a.cpu(), b) < 2e-2  # convolutions may run in TF32


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_gpu_mixed_precision_trains(dtype):
    model = build('xtiny').cuda().train()
    with torch.autocast('cuda', dtype=dtype):
        loss = sum(x.float().square().mean() for x in model(formula_image(200, 333, batch=2).float().cuda()))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
