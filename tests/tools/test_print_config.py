"""Printing configs and their parts."""

import pytest

from helpers import fails_cleanly, tool_here
from scopevit.utils.config import load_config

RETINANET = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'


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
