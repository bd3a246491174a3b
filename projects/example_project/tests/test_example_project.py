"""The example: its neck's shapes and gradients, and that its config trains, tests and is loaded again."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, tool, tool_here
from projects.example_project.multi_scale_pooling import MultiScalePooling

CONFIG = ROOT / 'projects/example_project/configs/scopevit-xtiny_multi-scale_2xb64-9e_fashion-mnist-32px.py'


def test_every_map_has_its_part_in_the_vector():
    maps = [torch.rand(2, 8 * 2**i, 8 // 2**i, 6 // 2**i, requires_grad=True) for i in range(3)]
    (vector,) = MultiScalePooling([8, 16, 32], 5)(tuple(maps))
    assert vector.shape == (2, 5)
    vector[0].square().sum().backward()
    for x in maps:
        assert x.grad[0].abs().max() > 0
        assert x.grad[1].abs().max() == 0  # images do not mix


def test_every_parameter_of_the_model_has_a_gradient():
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.head.fc(model.extract_feat(torch.rand(4, 1, 32, 32))[0]).square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.slow
def test_the_config_trains_for_an_iteration_and_is_tested(tmp_path):
    data = tmp_path / 'data'
    assert tool_here('data/fashion_mnist.py', 'unpack', '--out-dir', data).returncode == 0
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=64']
    for loader, images in (('train_dataloader', 64), ('val_dataloader', 20), ('test_dataloader', 20)):
        options += [f'{loader}.dataset.data_root={data}', f'{loader}.dataset.indices={images}']
        options += [f'{loader}.num_workers=0', f'{loader}.persistent_workers=False']
    paths = dict(PYTHONPATH=str(ROOT))  # the config imports the project's neck
    tool('train.py', CONFIG, '--work-dir', tmp_path / 'run', *options, env=paths)
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    saved = torch.load(checkpoint, weights_only=False)
    assert saved['meta']['iter'] == 1
    assert saved['state_dict']['neck.projections.3.weight'].shape == (256, 256)
    tool('test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'test', *options, env=paths)
    assert 0 <= json.loads((tmp_path / 'test' / 'metrics.json').read_text())['accuracy/top1'] <= 100
