"""The controls beside the quick start's results: what is trained, and what counts as too close."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, fails_cleanly, load_tool, tool_here

CONTROLS = ROOT / 'projects' / 'scenes' / 'controls.py'


@pytest.fixture(scope='module')
def controls():
    return load_tool(CONTROLS)


def test_all_tasks_are_among_them_and_pretraining_is_first(controls):
    scopes = [Config.fromfile(ROOT / name).default_scope for name in controls.configs()]
    assert scopes[0] == 'mmpretrain'
    assert set(scopes[1:]) == {'mmdet', 'mmseg', 'mmpose'}


def test_resnet18_takes_the_backbones_place(controls, tmp_path):
    for name in controls.configs():
        cfg = Config.fromfile(controls.resnet18(name, tmp_path))
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        assert type(model.backbone).__name__ == 'ResNet'
        assert model.backbone.depth == 18
        build_optim_wrapper(model, cfg.optim_wrapper)


def test_a_random_backbone_does_not_learn(controls):
    options = dict([controls.RANDOM_BACKBONE.split('=')])
    for name in controls.configs()[1:]:
        cfg = Config.fromfile(ROOT / name)
        cfg.merge_from_dict({key: DictAction._parse_int_float_bool(value) for key, value in options.items()})
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        rates = {
            id(parameter): group['lr']
            for group in build_optim_wrapper(model, cfg.optim_wrapper).param_groups
            for parameter in group['params']
        }
        for parameter_name, parameter in model.named_parameters():
            assert (rates[id(parameter)] == 0) == parameter_name.startswith('backbone.')
        assert all(norm.training for norm in model.train().modules() if isinstance(norm, torch.nn.BatchNorm2d))


def test_metrics_that_a_random_backbone_reaches_are_named(controls):
    ours = dict(a={'coco/AP': 0.6}, b={'mIoU': 60.0, 'aAcc': 80.0})
    assert not controls.too_close(dict(ours=ours, frozen=dict(a={'coco/AP': 0.4}, b={'mIoU': 44.0, 'aAcc': 79.0})))
    close = controls.too_close(dict(ours=ours, frozen=dict(a={'coco/AP': 0.5}, b={'mIoU': 50.0})))
    assert close == ['a: keypoint AP', 'b: mIoU']


def test_trainings_of_both_controls(controls, tmp_path):
    pretraining, detection, *_ = controls.configs()
    frozen = controls.training('frozen', detection, tmp_path)
    assert controls.RANDOM_BACKBONE in frozen.command('train')
    assert frozen.command('train')[:4] == ['bash', 'tools/dist_train.sh', str(ROOT / detection), '2']
    resnet = controls.training('resnet18', detection, tmp_path, 'pretraining.pth').command('train')
    assert Path(resnet[2]).name == f'resnet18_{Path(detection).name}'
    assert resnet[resnet.index('--pretrained') + 1] == 'pretraining.pth'
    (frozen.folder / 'test').mkdir(parents=True)
    (frozen.folder / 'test' / 'metrics.json').write_text('{"coco/bbox_mAP_50": 0.25, "coco/bbox_mAP": 0.1}')
    assert controls.says(controls.measure(frozen)) == 'box AP50 0.250'


def test_the_others_wait_for_what_they_start_with(controls, tmp_path):
    asked = []

    class Trainer:
        def run(self, trainings):
            asked.extend(own.name for own in trainings)
            return []

    assert controls.control('resnet18', tmp_path, Trainer()) == {}
    assert asked == [f'resnet18, {Path(controls.configs()[0]).stem}']


def test_table_of_what_is_finished(controls, tmp_path, monkeypatch):
    def write(folder, metrics):
        folder.mkdir(parents=True)
        (folder / 'metrics.json').write_text(json.dumps(metrics))

    def finish(name, metrics):
        (config,) = [config for config in controls.configs() if Path(config).stem == name]
        controls.training('frozen', config, (tmp_path / 'controls').resolve()).note(dict(metrics=metrics))

    metrics = {key: 1 / scale for key, (_, scale) in controls.METRICS.items()}
    names = [Path(config).stem for config in controls.configs()]
    for name in names:
        write(tmp_path / 'run' / ('pretraining' if name == names[0] else name), metrics)
    finish(names[1], {'coco/bbox_mAP_50': 0.25})
    table = tmp_path / 'table.md'
    monkeypatch.setattr(controls, 'histograms_of', lambda folder: folder)
    monkeypatch.setattr(controls, 'accuracy_by_colour', lambda train, val: 0.42)
    words = ['--work-dir', tmp_path / 'controls', '--table', table, '--finished']
    monkeypatch.setattr('sys.argv', ['controls.py', str(tmp_path / 'run'), *map(str, words)])
    controls.main()
    text = table.read_text()
    assert f'| {names[1]} | box AP50 | 1.000 | 0.250 |  |' in text
    assert 'Empty cells were not trained yet.' in text
    assert 'colour histograms: top-1 accuracy 0.420' in text
    finish(names[2], {'coco/segm_mAP_50': 0.9})
    with pytest.raises(SystemExit):
        controls.main()


def test_unfinished_quick_start_is_refused(tmp_path):
    result = tool_here(CONTROLS, tmp_path, '--table', tmp_path / 'table.md')
    fails_cleanly(result, 'metrics.json does not exist', 'quickstart.sh')
    assert not (tmp_path / 'table.md').exists()
