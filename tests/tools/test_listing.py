"""Listing configs and printing their parts."""

import pytest

from helpers import ROOT, fails_cleanly, tool_here
from scopevit.utils.config import load_config

RETINANET = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'


def names(result):
    return [line.split('|')[1].strip() for line in result.stdout.splitlines()[2:]]


def test_all_recipes_are_listed_by_names_that_load(tmp_path):
    here, elsewhere = (names(tool_here('analysis/list_configs.py', cwd=cwd)) for cwd in (ROOT, tmp_path))
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('*/*.py')}
    assert recipes <= set(here)
    assert {name.replace('configs/', 'scopevit::') for name in recipes} <= set(elsewhere)
    load_config(next(name for name in elsewhere if name.startswith('scopevit::')))


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


def test_a_part_is_printed_with_its_places():
    words = [RETINANET, 'model.neck', 'optim_wrapper.optimizer', '--cfg-options', 'optim_wrapper.optimizer.lr=3']
    lines = tool_here('analysis/print_config.py', *words).stdout.splitlines()
    assert 'optim_wrapper.optimizer.lr = 3  # --cfg-options' in lines
    (channels,) = [line for line in lines if line.startswith('model.neck.in_channels')]
    assert channels == f'model.neck.in_channels = [64, 128, 256]  # {RETINANET}:7'
    (kind,) = [line for line in lines if line.startswith('model.neck.type')]
    assert kind.startswith("model.neck.type = 'FPN'  # mmdet::_base_/models/retinanet_r50_fpn.py:")


def test_a_whole_config_is_printed_as_one_that_loads(tmp_path):
    (tmp_path / 'all.py').write_text(tool_here('analysis/print_config.py', RETINANET).stdout)
    assert load_config(str(tmp_path / 'all.py')).model == load_config(RETINANET).model


@pytest.mark.parametrize(
    ('key', 'says'),
    [
        ('model.nek.type', 'the config has no model.nek; did you mean model.neck?'),
        ('param_scheduler.7', 'the config has no param_scheduler.7; there are 0, 1'),
    ],
)
def test_a_key_that_is_not_there(key, says):
    fails_cleanly(tool_here('analysis/print_config.py', RETINANET, key), says)
