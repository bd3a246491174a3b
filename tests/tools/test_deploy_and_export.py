"""Checkpoints in the deploy form, and ONNX graphs: equal results, and clear refusals."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, fails_cleanly, tool_here
from reference.weights import fill
from scopevit.engine.launch import load_config

CONFIG = f"""
_base_ = '{ROOT}/configs/classification/scopevit-tiny_1xb64-30e-ft_custom-256px.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=(16, 32), depths=(1, 1), num_heads=(2, 2)), out_indices=(1,)),
    head=dict(num_classes=3, in_channels=32))
data_preprocessor = dict(num_classes=3)
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
    assert not (tmp_path / 'x.pth').exists()


def test_backbone_without_deploy_form(tmp_path):
    config = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    init_default_scope('mmpretrain')
    model = MODELS.build(load_config(config).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'r18.pth')
    result = tool_here('converters/deploy_model.py', config, tmp_path / 'r18.pth', tmp_path / 'out.pth')
    fails_cleanly(result, 'has no deploy form')


@pytest.mark.slow
def test_onnx_graph_serves_any_size(trained, tmp_path):
    import onnxruntime

    config, checkpoint = trained
    out = tmp_path / 'model.onnx'
    result = tool_here('export/onnx_export.py', config, checkpoint, out)
    assert result.returncode == 0, result.stderr[-3000:]
    session = onnxruntime.InferenceSession(str(out))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata['channels']) == 'RGB'
    assert np.allclose(json.loads(metadata['mean']), [123.675, 116.28, 103.53])
    model = build(config).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    for batch, height, width in ((1, 64, 64), (2, 72, 333), (5, 40, 48)):
        image = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = model(image, None, mode='tensor')
        (logits,) = session.run(None, {'image': image.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
    fails_cleanly(tool_here('export/onnx_export.py', config, checkpoint, out), 'exists already')


def test_export_names_what_is_wrong(trained, tmp_path):
    config, checkpoint = trained
    words = ('export/onnx_export.py', config)
    fails_cleanly(tool_here(*words, tmp_path / 'no.pth', tmp_path / 'x.onnx'), 'does not exist')
    fails_cleanly(tool_here(*words, checkpoint, tmp_path / 'x.onnx', '--shape', 32, 64), 'at least 33')
    assert not list(tmp_path.glob('*.onnx'))
    assert not list(tmp_path.glob('.export-*'))
