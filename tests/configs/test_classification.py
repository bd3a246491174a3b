"""Every classification config builds, says what it promises, and runs from the command line."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import CONFIGS, ROOT, imagenet_folders, tool_here

NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
IMAGENET = [name for name in NAMES if '_in1k-' in name]
FINE_TUNE = 'scopevit-tiny_1xb64-30e-ft_custom-256px'
METAFILE = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())


def load(name):
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.mark.parametrize('name', NAMES)
def test_builds_and_channels_agree(name):
    cfg = load(name)
    model = MODELS.build(cfg.model)
    assert type(model.backbone).__name__ == 'ScopeViT'
    assert model.backbone.feature_channels == (cfg.model.head.in_channels,)
    arch = re.match(r'scopevit-(\w+)_', name).group(1)
    assert cfg.model.backbone.arch == arch


@pytest.mark.parametrize('name', NAMES)
def test_name_keeps_its_promises(name):
    cfg = load(name)
    gpus, batch, epochs = map(int, re.search(r'_(\d+)xb(\d+)-(\d+)e', name).groups())
    size = int(re.search(r'-(\d+)px$', name).group(1))
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[-1].end == epochs
    test_size = [t.get('crop_size', t.get('scale')) for t in cfg.test_dataloader.dataset.pipeline if 'type' in t]
    assert size in test_size


@pytest.mark.parametrize('name', NAMES)
def test_batch_norms_are_averaged_over_processes(name):
    """Otherwise validation mixes the statistics of all processes and a checkpoint holds those of one."""
    assert any(hook.type.endswith('SyncBuffersHook') for hook in load(name).custom_hooks)


def test_layer_decay_reaches_every_layer():
    cfg = load(FINE_TUNE)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    # MMEngine adds a last group without parameters, which only remembers the base rate.
    of_parameter = {id(group['params'][0]): group for group in wrapper.param_groups if group['params']}
    groups = {name: of_parameter[id(parameter)] for name, parameter in model.named_parameters()}
    rates = {name: group['lr'] for name, group in groups.items()}
    assert rates['head.fc.weight'] == pytest.approx(5e-4)
    assert rates['backbone.stages.3.norm.weight'] == pytest.approx(5e-4 * 0.8)
    assert rates['backbone.stages.0.patch_embed.0.weight'] == pytest.approx(5e-4 * 0.8**12)
    assert rates['backbone.stages.0.blocks.1.gsda.mlp.fc1.weight'] == pytest.approx(5e-4 * 0.8**10)
    decays = {name: group['weight_decay'] for name, group in groups.items()}
    assert decays['backbone.stages.0.blocks.0.mssa.ls1.gamma'] == 0
    assert decays['backbone.stages.3.norm.weight'] == 0
    assert decays['head.fc.weight'] == 0.05


def test_metafile_names_every_config_once():
    listed = [Path(model['Config']).stem for model in METAFILE['Models']]
    assert sorted(listed) == [name for name in NAMES if name != FINE_TUNE]
    assert all((ROOT / model['Config']).is_file() for model in METAFILE['Models'])
    imported = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert imported == [
        f'configs/{task}/metafile.yml' for task in ('classification', 'detection', 'segmentation', 'pose')
    ]


def test_model_index_is_read_as_mim_reads_it(monkeypatch):
    from modelindex.load_model_index import load

    monkeypatch.chdir(ROOT)
    index = load('model-index.yml')
    assert not index.check_errors
    models = list(index.models)
    files = [ROOT / f'configs/{task}/metafile.yml' for task in ('classification', 'detection', 'segmentation', 'pose')]
    assert len(models) == sum(len(yaml.safe_load(file.read_text())['Models']) for file in files)
    # What a reader of the index takes for a result was measured here.
    assert not [model.name for model in models if model.results and '_in1k-' in model.name]
    for model in models:  # each with what stands in the collection, which is in the first file
        assert 'Global-Scale Dilated Attention' in model.full_model.metadata.data['Architecture']


@pytest.mark.parametrize('entry', METAFILE['Models'], ids=lambda entry: entry['Name'])
def test_metafile_counts_are_true(entry):
    """Parameters and multiply-accumulates (convolution, linear, matrix product) with the head."""
    name = Path(entry['Config']).stem
    cfg = load(name)
    size = int(re.search(r'-(\d+)px$', name).group(1))
    model = MODELS.build(cfg.model).eval()
    image = torch.zeros(1, cfg.model.backbone.get('in_channels', 3), size, size)
    counter = FlopCounterMode(display=False)
    # The counter does not know the CPU's fused attention; the plain one is two matrix products.
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image, mode='tensor')
    metadata = entry['Metadata']
    assert metadata['Parameters'] == sum(p.numel() for p in model.parameters())
    backbone = sum(p.numel() for p in model.backbone.parameters())
    assert metadata.get('Backbone Parameters') == (backbone if name in IMAGENET else None)
    assert (metadata['Image Size'], metadata['FLOPs']) == (f'{size}x{size}', counter.get_total_flops() // 2)
    if 'Backbone Channels' in metadata:
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model.backbone(image)
        assert metadata['Backbone FLOPs'] == counter.get_total_flops() // 2
        assert metadata['Backbone Channels'] == list(model.backbone.arch.embed_dims)


@pytest.fixture(scope='session')
def imagenet(tmp_path_factory):
    return imagenet_folders(tmp_path_factory.mktemp('imagenet'))


@pytest.mark.slow
@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet_config_runs_unchanged(name, imagenet, tmp_path):
    """Training and validation on ImageNet's layout; only the place, the lengths and the batch are changed."""
    options = [f'{loader}_dataloader.dataset.data_root={imagenet}' for loader in ('train', 'val', 'test')]
    options += ['train_dataloader.dataset.indices=4', 'val_dataloader.dataset.indices=2', 'train_cfg.max_epochs=1']
    options += ['train_dataloader.batch_size=4']  # a smaller last batch is dropped
    result = tool_here(
        'train.py', CONFIGS / f'{name}.py', '--work-dir', tmp_path, '--cfg-options', *options, check=True
    )
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert 'accuracy/top5' in result.stdout + result.stderr
