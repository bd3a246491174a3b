"""Checkpoints in the deploy form, and ONNX graphs: equal results, and clear refusals."""

import json
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, fails_cleanly, tool_here
from reference.weights import fill
from scopevit.utils.config import load_config

FOUR_STAGES = 'embed_dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(2, 2, 4, 4)'
CONFIG = f"""
_base_ = '{ROOT}/configs/classification/scopevit-tiny_1xb64-30e-ft_custom-256px.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=(16, 32), depths=(1, 1), num_heads=(2, 2)), out_indices=(1,)),
    head=dict(num_classes=3, in_channels=32))
data_preprocessor = dict(num_classes=3)
"""
CLASSIFIER = CONFIG.replace('embed_dims=(16, 32), depths=(1, 1), num_heads=(2, 2)', FOUR_STAGES).replace(
    'out_indices=(1,)', 'out_indices=(3,)'
)
ONE_SIZE = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', arch=dict(embed_dims=8, num_layers=1, tokens_mlp_dims=4, channels_mlp_dims=8)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=8))
"""
DEPLOY = {'model.backbone.deploy': True}


def build(config, options=None):
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options or {})
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model)


@pytest.fixture
def trained(tmp_path):
    """A config and a checkpoint of it."""
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'epoch_1.pth'
    config.write_text(CONFIG)
    model = fill(build(config)).float()
    meta = dict(epoch=1, dataset_meta=dict(classes=('a', 'b', 'c')), cfg='not for others')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return config, checkpoint


@torch.no_grad()
def test_deploy_checkpoint(trained, tmp_path):
    config, checkpoint = trained
    out = tmp_path / 'deploy' / 'model.pth'
    result = tool_here('converters/deploy_model.py', config, checkpoint, out)
    assert result.returncode == 0, result.stderr
    slim = torch.load(out, weights_only=True)
    assert slim['meta']['epoch'] == 1
    assert 'cfg' not in slim['meta']
    model, deploy = build(config).eval(), build(config, DEPLOY).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    deploy.load_state_dict(slim['state_dict'], strict=True)
    image = torch.randn(2, 3, 40, 72)
    expected = model(image, None, mode='tensor')
    torch.testing.assert_close(deploy(image, None, mode='tensor'), expected, rtol=1e-5, atol=1e-5)
    # Nothing is converted twice, written over or mixed up.
    fails_cleanly(tool_here('converters/deploy_model.py', config, checkpoint, out), 'exists already')
    fails_cleanly(tool_here('converters/deploy_model.py', config, out, tmp_path / 'x.pth'), 'is of another model')
    other = ('--cfg-options', 'model.head.num_classes=4')
    fails_cleanly(
        tool_here('converters/deploy_model.py', config, checkpoint, tmp_path / 'x.pth', *other), 'another model'
    )
    assert not (tmp_path / 'x.pth').exists()


def test_backbone_without_deploy_form(tmp_path):
    config = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    init_default_scope('mmpretrain')
    model = MODELS.build(load_config(config).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'r18.pth')
    result = tool_here('converters/deploy_model.py', config, tmp_path / 'r18.pth', tmp_path / 'out.pth')
    fails_cleanly(result, 'has no deploy form')


@pytest.fixture
def classifier(tmp_path):
    """Four stages, as in practice, and a checkpoint."""
    config, checkpoint = tmp_path / 'classifier.py', tmp_path / 'classifier.pth'
    config.write_text(CLASSIFIER)
    torch.save(dict(state_dict=fill(build(config)).float().state_dict()), checkpoint)
    return config, checkpoint


@pytest.mark.slow
def test_onnx_graph_serves_any_size(classifier, tmp_path):
    import onnxruntime

    config, checkpoint = classifier
    out = tmp_path / 'model.onnx'
    words = ('--size', 256, '--cfg-options', 'data_preprocessor.to_rgb=False')
    result = tool_here('export/onnx_export.py', config, checkpoint, out, *words)
    assert result.returncode == 0, result.stderr[-3000:]
    session = onnxruntime.InferenceSession(str(out))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata['channels']) == 'BGR'
    assert np.allclose(json.loads(metadata['mean']), [123.675, 116.28, 103.53])
    model = build(config).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    # At 256 and less a side of the last map is no longer than that of its grid.
    sizes = [(1, 192, 192), (2, 224, 224), (1, 256, 256), (1, 333, 500), (1, 64, 64), (5, 72, 40)]
    for batch, height, width in sizes:
        image = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = model(image, None, mode='tensor')
        (logits,) = session.run(None, {'image': image.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
    fails_cleanly(tool_here('export/onnx_export.py', config, checkpoint, out), 'exists already')


def test_export_names_what_is_wrong(trained, tmp_path, monkeypatch):
    config, checkpoint = trained
    words = ('export/onnx_export.py', config)
    out = tmp_path / 'x.onnx'
    fails_cleanly(tool_here(*words, tmp_path / 'no.pth', out), 'does not exist')
    fails_cleanly(
        tool_here(*words, checkpoint, out, '--size', 32, 64), 'at least 33 33, but is 32 64', 'one row or column'
    )
    fails_cleanly(tool_here(*words, checkpoint, tmp_path / 'x.pth'), 'OUT must end in .onnx')
    nothing = 'mmpretrain::_base_/default_runtime.py'
    fails_cleanly(tool_here(words[0], nothing, checkpoint, out), 'this config has no model')

    def broken(*args, **kwargs):
        raise RuntimeError('a page about the exporter') from ValueError('a branch on the size')

    monkeypatch.setattr(torch.onnx, 'export', broken)
    monkeypatch.setattr('scopevit.utils.errors.own_error', lambda error: None)  # else it is taken for this file's bug
    result = tool_here(*words, checkpoint, out)
    fails_cleanly(result, 'cannot be exported as one graph for images of any size: ValueError: a branch on the size')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    fails_cleanly(tool_here(*words, checkpoint, out), 'not installed: onnxruntime; install requirements/export.txt')
    assert not list(tmp_path.glob('*.onnx'))
    assert not list(tmp_path.glob('.export-*'))


def test_models_of_one_size_are_not_exported(tmp_path):
    config, checkpoint, out = tmp_path / 'vit.py', tmp_path / 'vit.pth', tmp_path / 'vit.onnx'
    config.write_text(ONE_SIZE)
    torch.save(dict(state_dict=build(config).state_dict()), checkpoint)
    result = tool_here('export/onnx_export.py', config, checkpoint, out)
    fails_cleanly(result, 'does not take images of any size; at 192x192 it fails: ')
    assert not out.exists()
