"""scopevit.timm: the checks that timm makes of its own models, and weights that go both ways."""

import functools
import importlib
import itertools
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import timm.loss
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2
from timm.optim.optim_factory import param_groups_layer_decay

import scopevit.timm  # noqa: F401
from helpers import CONFIGS, ROOT
from reference.weights import formula_image, formula_weight
from scopevit.apis.model import switch_to_deploy
from scopevit.utils.checkpoint import CheckpointError
from scopevit.utils.weight_names import NAMINGS

NAMES = timm.list_models('scopevit*')
SIZE = 64
every_model = pytest.mark.parametrize('name', NAMES)


@functools.cache
def weight(key, shape):
    return formula_weight(key, shape).float()


def fill(model):
    """Weights with which every part shows in the results."""
    model.load_state_dict({key: weight(key, value.shape) for key, value in model.state_dict().items()})
    return model.eval()


def create(name='scopevit_xtiny', **options):
    return fill(timm.create_model(name, **options))


def images(channels=3, batch=2, size=SIZE):
    return formula_image(size, size, batch, channels).float()


def close(value, expected, tolerance=1e-5):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


def classifier(num_classes=7):
    """mmpretrain's, of the ImageNet config."""
    from mmpretrain.registry import MODELS

    cfg = Config.fromfile(CONFIGS / 'scopevit-xtiny_8xb128-300e_in1k-256px.py')
    cfg.model.head.num_classes = num_classes
    cfg.model.train_cfg = None
    init_default_scope(cfg.default_scope)
    return fill(MODELS.build(cfg.model))


def from_file(path, classes=7, **options):
    overlay = dict(file=str(path), num_classes=classes)
    return timm.create_model('scopevit_xtiny', pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()


@pytest.fixture
def file(tmp_path):
    """A checkpoint of our config as MMEngine writes it, and its classifier."""
    model = classifier()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), tmp_path / 'epoch_1.pth')
    return SimpleNamespace(path=tmp_path / 'epoch_1.pth', model=model, folder=tmp_path)


def test_the_three_are_registered():
    assert NAMES == ['scopevit_small', 'scopevit_tiny', 'scopevit_xtiny']
    assert timm.list_pretrained('scopevit*') == []


@every_model
def test_every_parameter_learns(name):
    model = timm.create_model(name, num_classes=42, drop_rate=0.1, drop_path_rate=0.2).train()
    outputs = model(images())
    assert outputs.shape == (2, 42)
    outputs.square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@every_model
@torch.no_grad()
def test_default_cfg_is_true_of_the_model(name):
    model = create(name)
    cfg = model.default_cfg
    data = timm.data.resolve_model_data_config(model)
    assert (data['input_size'], data['crop_pct'], data['interpolation']) == ((3, 256, 256), 0.9, 'bicubic')
    assert data['mean'] == timm.data.IMAGENET_DEFAULT_MEAN
    features = model.forward_features(images(batch=1, size=256))
    assert features.shape == (1, model.num_features, *cfg['pool_size'])
    assert model.get_submodule(cfg['classifier']) is model.get_classifier()
    assert model.get_submodule(cfg['first_conv']).in_channels == 3
    close(model.forward_head(features), model(images(batch=1, size=256)))
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    assert [info['num_chs'] for info in model.feature_info] == list(model.arch.embed_dims)


@every_model
@torch.no_grad()
def test_poolings(name):
    model = create(name, num_classes=7)
    features = model.forward_features(images())
    width = model.arch.embed_dims[-1]
    for pool, factor in (('max', 1), ('avgmax', 1), ('catavgmax', 2), ('avg', 1)):
        assert timm.create_model(name, num_classes=7, global_pool=pool)(images()).shape == (2, 7)
        model.reset_classifier(5, pool)
        assert model(images()).shape == (2, 5)
        assert model.head_hidden_size == factor * width
    model.reset_classifier(0)
    close(model(images()), features.mean((2, 3)))
    model.reset_classifier(0, '')
    close(model(images()), features)
    assert model.num_classes == 0
    whole = timm.create_model(name, num_classes=0, global_pool='').eval()
    assert whole(images()).shape == (2, width, 2, 2)


@every_model
@torch.no_grad()
def test_intermediates(name):
    model, x = create(name), images()
    last, maps = model.forward_intermediates(x)
    close(last, model.forward_features(x))
    dims = model.arch.embed_dims
    assert [feature.shape for feature in maps] == [(2, dim, 16 >> i, 16 >> i) for i, dim in enumerate(dims)]
    for indices, taken in ((2, (2, 3)), ([1, -1], (1, 3)), ([0], (0,))):
        for stop_early in (False, True):
            some = model.forward_intermediates(x, indices, stop_early=stop_early, intermediates_only=True)
            assert len(some) == len(taken)
            assert all(torch.equal(feature, maps[i]) for feature, i in zip(some, taken))
    first, _ = model.forward_intermediates(x, [0], stop_early=True)
    assert torch.equal(first, maps[0])
    last_too = model.forward_intermediates(x, [3], output_fmt='NHWC', intermediates_only=True)
    assert torch.equal(last_too[0].permute(0, 3, 1, 2), maps[3])
    with pytest.raises(ValueError, match='output_fmt must be NCHW or NHWC'):
        model.forward_intermediates(x, output_fmt='NLC')


@every_model
@torch.no_grad()
def test_pruned_to_a_stage_it_gives_that_stages_map(name):
    model, x = create(name), images()
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert model.prune_intermediate_layers([0, 2]) == [0, 2]
    assert torch.equal(model(x), maps[2])
    assert len(model.stages) == 3
    assert model.num_features == model.arch.embed_dims[2]
    model.reset_classifier(4, 'avg')
    assert model(x).shape == (2, 4)


@pytest.mark.parametrize(
    ('mode', 'indices'),
    [*itertools.product([None, 'getter', 'list', 'dict', 'hook'], [None, (1, 3), (0, 1), (-2,)]), ('fx', (1, 3))],
)
@every_model
@torch.no_grad()
def test_features_only(name, mode, indices):
    model, x = create(name), images()
    maps = model.forward_intermediates(x, intermediates_only=True)
    options = {key: value for key, value in (('feature_cls', mode), ('out_indices', indices)) if value is not None}
    features = timm.create_model(name, features_only=True, **options).eval()
    # Each mode has names of its own: model.stages.0.x, stages_0.x, body.stages.0.x, graph_module.stages.0.x
    state = model.state_dict()
    of_model = {key: re.sub(r'^.*?stages[._]', 'stages.', key) for key in features.state_dict()}
    features.load_state_dict({key: state[of_model[key]] for key in of_model})
    outputs = features(x)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    wanted = (0, 1, 2, 3) if indices is None else [i % 4 for i in indices]
    assert features.feature_info.channels() == [model.arch.embed_dims[i] for i in wanted]
    assert features.feature_info.reduction() == [4 << i for i in wanted]
    assert len(outputs) == len(wanted)
    for output, i in zip(outputs, wanted):
        close(output, maps[i], 1e-4)  # small and tiny are deep, and some ways round otherwise
    if mode in (None, 'getter'):
        assert all(output.is_contiguous() for output in outputs)  # mmcv's operators need it
        assert len(features.model.stages) == max(wanted) + 1


@every_model
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@torch.no_grad()
def test_traces(name):
    model, x = create(name, num_classes=7), images()
    for traced in (torch.fx.symbolic_trace(model), torch.jit.trace(model, x, check_trace=False)):
        close(traced(x), model(x), 1e-4)


@pytest.mark.parametrize('channels', [1, 4])
def test_other_channels_take_the_weights_of_three(channels, file):
    model = from_file(file.path, num_classes=7, in_chans=channels)
    assert model(images(channels)).shape == (2, 7)
    first, of_file = model.stages[0].patch_embed[0].weight, file.model.backbone.stages[0].patch_embed[0].weight
    assert first.shape[1] == channels
    if channels == 1:
        close(first, of_file.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=rf'a batch of images \(B, {channels}, H, W\)'):
        model(images(3))


@pytest.mark.parametrize('naming', NAMINGS)
@torch.no_grad()
def test_logits_are_those_of_the_config(naming, file):
    expected = file.model(images(), mode='tensor')
    state = file.model.state_dict()
    plain = {key.removeprefix('backbone.'): value for key, value in state.items()}
    torch.save({NAMINGS[naming](key): value for key, value in plain.items()}, file.folder / 'named.pth')
    for path in (file.path, file.folder / 'named.pth'):
        model = from_file(path, num_classes=7)
        torch.testing.assert_close(model(images()), expected, rtol=1e-6, atol=1e-6)
        assert all(torch.equal(value, plain[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_a_checkpoint_of_another_task_gives_its_backbone(file):
    state = {key: value for key, value in file.model.state_dict().items() if key.startswith('backbone.')}
    expected = file.model.backbone(images())[-1]
    torch.save(dict(state_dict={**state, 'neck.fpn.weight': torch.ones(2)}), file.folder / 'detector.pth')
    assert torch.equal(from_file(file.folder / 'detector.pth', features_only=True)(images())[-1], expected)
    close(from_file(file.folder / 'detector.pth', num_classes=0)(images()), expected.mean((2, 3)))


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda w: w.pop('backbone.stages.3.norm.bias'), 'missing: backbone.stages.3.norm.bias'),
        (
            lambda w: w.update({'backbone.stages.0.blocks.1.x': torch.ones(1)}),
            'unexpected: backbone.stages.0.blocks.1.x',
        ),
    ],
    ids=['missing', 'unexpected'],
)
def test_refuses_another_backbone_where_timm_would_not(change, says, file):
    state = file.model.state_dict()
    change(state)
    torch.save(state, file.folder / 'other.pth')
    with pytest.raises(CheckpointError, match=f'another arch.*(?s:.*){says}'):
        from_file(file.folder / 'other.pth', num_classes=3)  # not strict, as timm does for another number of classes


def test_there_are_no_published_weights():
    with pytest.raises(RuntimeError, match='No pretrained weights exist for scopevit_tiny'):
        timm.create_model('scopevit_tiny', pretrained=True)


@pytest.mark.parametrize('options', [dict(no_such=1), dict(out_indices=(0, 1))], ids=str)
def test_options_that_do_not_exist(options):
    with pytest.raises(TypeError, match=next(iter(options))):
        timm.create_model('scopevit_xtiny', **options)


def test_options_reach_the_backbone():
    model = timm.create_model('scopevit_xtiny', drop_path_rate=0.3, drop_rate=0.2, max_keys=16, dtype=torch.float64)
    rates = [block.mssa.ls1.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.3 * i / 7 for i in range(8)])
    assert model.head.drop.p == 0.2
    assert model.stages[0].blocks[0].mssa.attn.max_keys == 16
    assert model(images().double()).dtype == torch.float64
    with torch.device('meta'):
        assert next(timm.create_model('scopevit_xtiny').parameters()).is_meta


@every_model
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for enable in (False, True):
        model = create(name, num_classes=7).train()
        model.set_grad_checkpointing(enable)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model(images()).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * one.abs().max().item())


@every_model
def test_layers_of_layer_decay_are_the_backbones(name):
    model = timm.create_model(name)
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    head = model.get_layer_depth('stages.0.norm.bias')[1] - 1
    for key, layer in layers.items():
        assert layer == (head if key.startswith('head.') else model.get_layer_depth(key)[0]), key
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert {key: layer for key, layer in coarse.items() if key.endswith('norm.bias') and key.count('.') == 3} == {
        f'stages.{i}.norm.bias': i + 1 for i in range(4)
    }
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    decayed = {id(p) for group in groups if group['weight_decay'] for p in group['params']}
    assert {p.ndim > 1 for p in model.parameters() if id(p) in decayed} == {True}
    assert {p.ndim > 1 for p in model.parameters() if id(p) not in decayed} == {False}


def test_a_step_with_timms_parts():
    torch.manual_seed(0)  # else both images may skip the branch that is looked at
    model = timm.create_model('scopevit_xtiny', num_classes=4, drop_path_rate=0.1)
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1e-3, weight_decay=0.05, layer_decay=0.8)
    ema = timm.utils.ModelEmaV3(model, decay=0.5)
    mixup = timm.data.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=4)
    before = {key: value.clone() for key, value in model.named_parameters()}
    x, target = mixup(images(), torch.tensor([0, 3]))
    loss = timm.loss.SoftTargetCrossEntropy()(model.train()(x), target)
    loss.backward()
    optimizer.step()
    ema.update(model)
    assert loss.isfinite()
    for key in ('stages.0.patch_embed.0.weight', 'stages.3.blocks.0.gsda.ls2.gamma', 'head.fc.weight'):
        assert not torch.equal(model.get_parameter(key), before[key])
    assert not torch.equal(ema.module.head.fc.weight, model.head.fc.weight)


@torch.no_grad()
def test_hub_format_round_trip(tmp_path):
    model = create(num_classes=7, in_chans=4, global_pool='max')
    timm.models.save_for_hf(model, tmp_path, model_config=dict(label_names=list('abcdefg')), safe_serialization=True)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert (config['architecture'], config['num_classes']) == ('scopevit_xtiny', 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.json', 'model.safetensors']
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    assert torch.equal(again(images(4)), model(images(4)))
    assert again.pretrained_cfg['label_names'] == list('abcdefg')


def test_push_hands_a_whole_folder_to_the_hub(tmp_path, monkeypatch):
    class Hub:
        """huggingface_hub's HfApi, with a folder for a network."""

        def __init__(self, **options):
            pass

        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=repo_id)

        def file_exists(self, **options):
            return False

        def upload_folder(self, repo_id, folder_path, **options):
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr('timm.models._hub.HfApi', Hub)
    model = create(num_classes=7)
    timm.models.push_to_hf_hub(model, 'somebody/scopevit_xtiny_toy', safe_serialization=True)
    folder = tmp_path / 'somebody' / 'scopevit_xtiny_toy'
    assert sorted(path.name for path in folder.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert torch.equal(again(images()), model(images()))


@torch.no_grad()
def test_deploy_form():
    model = create(num_classes=7)
    expected = model(images())
    torch.testing.assert_close(switch_to_deploy(model)(images()), expected, rtol=1e-4, atol=1e-4)


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm.layers', None)
    monkeypatch.delitem(sys.modules, 'scopevit.timm')
    with pytest.raises(ImportError, match='pip install "timm>='):
        importlib.import_module('scopevit.timm')


def test_models_by_name_as_the_page_has_them(monkeypatch):
    from mmpretrain.apis import ModelHub

    monkeypatch.setattr(ModelHub, '_models_dict', dict(ModelHub._models_dict))  # which takes a name once
    page = (ROOT / 'docs' / 'timm.md').read_text()
    by_name, of_mmpretrain = re.findall(r'```python\n(.*?)```', page.partition('## By name')[2], flags=re.DOTALL)
    for code, kind in ((by_name, 'RetinaNet'), (of_mmpretrain, 'ImageClassifier')):
        found = {}
        exec(compile(code, 'docs/timm.md', 'exec'), found)
        assert type(found['model']).__name__ == kind
    assert found['model'].head.fc.out_features == 10
