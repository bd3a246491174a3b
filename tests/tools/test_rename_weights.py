"""Golden values of the paper's released code, through the converter, and what it refuses."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from helpers import tool_here
from reference.weights import formula_image, formula_weight
from scopevit.apis.renaming import expected_weights
from scopevit.models import ScopeViT
from scopevit.utils.checkpoint import get_state_dict, load_backbone, read_checkpoint
from scopevit.utils.weight_names import mmengine_name, released_name

DATA = Path(__file__).parents[1] / 'data'


def released_weights(arch, num_classes=10):
    """A released checkpoint's weights, filled by the formula."""
    shapes = {key: value.shape for key, value in expected_weights(arch, num_classes).items()}
    released = {released_name(key): shape for key, shape in shapes.items()}
    return {key: formula_weight(key, shape) for key, shape in released.items()}


def run(*words):
    return tool_here('converters/rename_weights.py', *words)


def test_released_names():
    """Keys of the released code, written down by hand."""
    names = set(released_weights('tiny'))
    assert {
        'patch_embed1.projection.0.weight',
        'patch_embed1.projection.4.running_var',
        'patch_embed3.projection.bias',
        'patch_embed3.norm.weight',
        'blocks1.1.mssa.norm1.weight',
        'blocks1.0.mssa.attn.mspe.cpe.conv_pw.weight',
        'blocks1.0.mssa.attn.mspe.cpe.bn1.0.weight',
        'blocks2.0.mssa.attn.mspe.cpe.conv_dw.weight',
        'blocks2.0.mssa.attn.mspe.cpe.bn2.0.running_mean',
        'blocks2.0.mssa.attn.mspe.cpe.conv_pwl.weight',
        'blocks2.0.mssa.attn.mspe.cpe.bn3.bias',
        'blocks1.0.mssa.attn.mspe.large_embed.weight',
        'blocks1.0.mssa.attn.mspe.medium_embed.weight',
        'blocks3.4.mssa.attn.mspe.small_embed.weight',
        'blocks3.4.mssa.attn.query.weight',
        'blocks3.4.mssa.attn.key_value.weight',
        'blocks3.4.mssa.attn.proj.bias',
        'blocks3.4.mssa.ls1.gamma',
        'blocks3.4.mssa.mlp.fc1.weight',
        'blocks4.1.gsda.attn.qkv.weight',
        'blocks4.1.gsda.attn.proj.bias',
        'blocks4.1.gsda.attn.rel_pos.mlp.fc1.weight',
        'blocks4.1.gsda.attn.rel_pos.mlp.fc2.bias',
        'blocks4.1.gsda.ls2.gamma',
        'norm4.running_mean',
        'head.weight',
    } <= names
    assert 'blocks1.0.mssa.attn.mspe.small_embed.weight' not in names  # a scope without heads


@pytest.mark.parametrize('golden', ['tiny_256', 'xtiny_256x512'])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-8), (torch.float32, 3e-5)], ids=str)
@torch.no_grad()
def test_golden_values(golden, dtype, tolerance, tmp_path):
    expected = json.loads((DATA / f'{golden}.json').read_text())
    arch, (height, width) = expected['arch'], expected['size']
    torch.save({'state_dict': released_weights(arch)}, tmp_path / 'released.pth')
    result = run(tmp_path / 'released.pth', tmp_path / 'ours.pth')
    assert result.returncode == 0, result.stderr
    assert f'ScopeViT-{arch}' in result.stdout

    model = ScopeViT(arch, out_indices=(0, 1, 2, 3)).double()
    load_backbone(model, tmp_path / 'ours.pth')
    model.to(dtype).eval()
    features = model(formula_image(height, width, expected['batch']).to(dtype))
    for i, feature in enumerate(features):
        stage = expected[f'stage{i}']
        assert list(feature.shape) == stage['shape']
        std = stage['std']
        # contiguous(): the samples are taken in (B, C, H, W) order.
        samples = feature.contiguous().flatten()[:: stage['index_step']][:24].double()
        assert (samples - torch.tensor(stage['samples'], dtype=torch.float64)).abs().max() < tolerance * std
        assert abs(feature.double().mean().item() - stage['mean']) < tolerance * std
        assert abs(feature.double().std(unbiased=False).item() - std) < tolerance * std
    head = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    logits = features[-1].double().mean((2, 3)) @ head['head.fc.weight'].T + head['head.fc.bias']
    assert (logits[0] - torch.tensor(expected['logits'], dtype=torch.float64).flatten()).abs().max() < tolerance * 10


@pytest.mark.parametrize('nested', ['state_dict', 'model', 'state_dict_ema', None])
@pytest.mark.parametrize('arch', ['xtiny', 'small'])
def test_every_key_of_the_classification_config_is_matched(nested, arch, tmp_path, root):
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    weights = released_weights(arch, 1000)
    # timm keeps its command line beside the weights.
    beside = dict(epoch=3, args=argparse.Namespace(model='scopevit', lr=1e-3))
    torch.save({nested: weights, **beside} if nested else weights, tmp_path / 'released.pth')
    words = ('--arch', arch) if nested == 'model' else ()
    assert run(tmp_path / 'released.pth', tmp_path / 'ours.pth', *words).returncode == 0
    cfg = Config.fromfile(root / f'configs/classification/scopevit-{arch}_8xb128-300e_in1k-256px.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    state = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(model.head.fc.weight.double(), weights['head.weight'].float().double())


def test_averaged_weights_are_those_that_are_renamed(tmp_path):
    averaged = {key: value.float() for key, value in released_weights('xtiny').items()}
    raw = {key: value + 1 for key, value in averaged.items()}
    torch.save(dict(state_dict=raw, state_dict_ema=averaged, epoch=3), tmp_path / 'timm.pth')
    for kind, expected in ('auto', averaged), ('ema', averaged), ('raw', raw):
        out = str(tmp_path / f'{kind}.pth')
        result = run(tmp_path / 'timm.pth', out, '--to', 'timm', '--weights', kind)
        assert result.returncode == 0, result.stderr
        assert torch.equal(read_checkpoint(out)['state_dict']['head.fc.weight'], expected['head.weight'])


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda w: w.pop('norm2.weight'), 'norm2.weight'),
        (lambda w: w.update({'fc_norm.weight': torch.ones(3)}), 'fc_norm.weight'),
        (lambda w: w.update({'norm1.bias': torch.ones(33)}), r'norm1.bias (33,) for (32,)'),
        (lambda w: w.update({'head.fc.bias': torch.ones(10)}), 'unexpected: head.fc.bias'),
        (lambda w: w.update({f'x{i}': torch.ones(1) for i in range(9)}), 'x0, x1, x2, x3, x4, x5, x6, x7, x8'),
        (lambda w: w.update({f'x{i}': torch.ones(1) for i in range(99)}), 'x18, x19 and 79 more'),
    ],
    ids=['missing', 'unexpected', 'misshapen', 'our_own_name', 'some_are_named', 'a_hundred_are_not'],
)
def test_refuses_other_checkpoints_and_names_keys(change, says, tmp_path):
    weights = released_weights('tiny')
    change(weights)
    torch.save(weights, tmp_path / 'released.pth')
    result = run(tmp_path / 'released.pth', tmp_path / 'ours.pth')
    assert result.returncode == 1
    assert says in result.stderr
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize('first', ['mmengine', 'timm'])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_every_way_leads_back_bit_by_bit(first, suffix, tmp_path):
    weights = {key: value.float() for key, value in released_weights('xtiny').items()}
    weights['head.bias'][0] = -0.0
    torch.save(weights, tmp_path / 'released.pth')
    second = 'timm' if first == 'mmengine' else 'mmengine'
    names = [tmp_path / f'{name}.{suffix}' for name in (first, second, 'again')]
    for source, out, to in zip([tmp_path / 'released.pth', *names], names, (first, second, 'release')):
        result = run(source, out, '--to', to)
        assert result.returncode == 0, result.stderr
        assert f' to {to}: {len(weights)} matched, 0 missing, 0 unexpected' in result.stdout
    again = get_state_dict(read_checkpoint(str(names[-1])), '')
    assert again.keys() == weights.keys()
    for key, value in weights.items():
        assert again[key].dtype == value.dtype
        assert again[key].numpy().tobytes() == value.contiguous().numpy().tobytes(), key


def test_refuses_names_that_are_those_wanted(tmp_path):
    state = {mmengine_name(key): value for key, value in expected_weights('tiny', 10).items()}
    torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
    result = run(tmp_path / 'ours.pth', tmp_path / 'again.pth')
    assert result.returncode == 1
    assert 'has the names of mmengine already; choose --to release or timm' in result.stderr
    assert not (tmp_path / 'again.pth').exists()


def test_refuses_the_wrong_arch_and_existing_output(tmp_path):
    torch.save(released_weights('xtiny'), tmp_path / 'released.pth')
    result = run(tmp_path / 'released.pth', tmp_path / 'ours.pth', '--arch', 'tiny')
    assert result.returncode == 1
    assert 'blocks1.1.' in result.stderr
    (tmp_path / 'ours.pth').write_text('mine')
    result = run(tmp_path / 'released.pth', tmp_path / 'ours.pth')
    assert result.returncode == 1
    assert 'exists' in result.stderr
    assert (tmp_path / 'ours.pth').read_text() == 'mine'
