"""Listing configs."""

from helpers import ROOT, fails_cleanly, tool_here
from scopevit.models import ScopeViT
from scopevit.utils.config import load_config


def names(result):
    return [line.split('|')[1].strip() for line in result.stdout.splitlines()[2:]]


def test_all_recipes_are_listed_by_names_that_load(tmp_path):
    here, elsewhere = (names(tool_here('analysis/list_configs.py', cwd=cwd)) for cwd in (ROOT, tmp_path))
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')}
    assert recipes <= set(here)
    assert 'configs/classification/variants/scopevit-tiny_imagenet-a-256px.py' in here
    assert {name.replace('configs/', 'scopevit::') for name in recipes} <= set(elsewhere)
    load_config(next(name for name in elsewhere if name.startswith('scopevit::classification/variants/')))


def test_filters_and_order():
    result = tool_here('analysis/list_configs.py', 'Mask', 'tiny', 'coco', '1x')
    assert names(result) == [
        f'configs/detection/{name}_coco.py'
        for name in (
            'cascade-mask-rcnn_scopevit-tiny_fpn_1x',
            'mask-rcnn_scopevit-tiny_fpn_1x-as-run',
            'mask-rcnn_scopevit-tiny_fpn_1x',
        )
    ]
    assert '| 27.78 M | 266.6 G |' in ' '.join(result.stdout.split())
    measured = tool_here('analysis/list_configs.py', '--measured', '--sort', 'params').stdout
    assert 'Top 1 Accuracy 88.0' in measured
    assert "(the paper's)" not in measured
    parameters = [float(line.split('|')[4].split()[0]) for line in measured.splitlines()[2:]]
    assert parameters == sorted(parameters)
    fails_cleanly(tool_here('analysis/list_configs.py', 'tiny', 'resnet'), 'no config has tiny and resnet')


def test_backbones_are_all_that_there_are():
    assert names(tool_here('analysis/list_configs.py', '--backbones')) == list(ScopeViT.arch_settings)
    small = tool_here('analysis/list_configs.py', '--backbones', 'small').stdout.splitlines()[2:]
    assert [' '.join(line.split()) for line in small] == [
        '| small | scopevit_small | 64, 128, 256, 512 | 256x256 | 17.65 M | 4.525 G |'
    ]
    by_size = tool_here('analysis/list_configs.py', '--backbones', '--sort', 'macs')
    assert names(by_size) == ['xtiny', 'tiny', 'small']
    fails_cleanly(tool_here('analysis/list_configs.py', '--backbones', 'huge'), 'no backbone has huge')
