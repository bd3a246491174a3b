"""The toolboxes' own tools."""

import sys

import pytest

from helpers import fails_cleanly, load_tool, tool_here
from scopevit.utils.errors import UserError
from scopevit.utils.toolboxes import TOOLBOXES, find_tool

CONFIG = 'projects/scenes/configs/retinanet_scopevit-xtiny_fpn_2xb4-1e_scenes.py'


def test_tools_of_all_toolboxes_are_listed_in_a_line_each():
    lines = tool_here('toolbox.py').stdout.splitlines()
    assert {line.split()[0] for line in lines} == set(TOOLBOXES)
    told = {tuple(line.split()[:2]): ' '.join(line.split()[2:]) for line in lines}
    assert len(told) == len(lines)
    assert told['mmdet', 'misc/print_config'] == 'Print the whole config'
    assert ('mmpose', 'dataset_converters/parse_animalpose_dataset') in told
    assert ('mmpretrain', 'analysis_tools/utils') not in told  # others import it
    assert tool_here('toolbox.py', 'mmseg').stdout.splitlines() == [line for line in lines if line.startswith('mmseg ')]


def test_a_tool_gets_its_arguments_and_finds_the_backbone(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    words = ('--cfg-options', 'model.backbone.arch=small')
    result = tool_here('toolbox.py', 'mmdet', 'print_config', CONFIG, *words)
    assert result.returncode == 0, result.stderr
    assert "type='scopevit.ScopeViT'" in result.stdout
    assert "arch='small'" in result.stdout
    path = 'configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py'
    assert load_tool('toolbox.py').as_file(f'scopevit::{path[8:]}').endswith(path)


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (('mmde',), 'did you mean mmdet?'),
        (('mmdet', 'confusoin_matrix'), 'did you mean analysis_tools/confusion_matrix?'),
        (('mmseg', 'browse_dataset'), 'name analysis_tools/browse_dataset or misc/browse_dataset'),
        (('mmdet', 'print_config', 'scopevit::nothing.py'), 'config scopevit::nothing.py does not exist'),
    ],
)
def test_a_wrong_name_ends_in_one_line_with_the_nearest(words, says):
    fails_cleanly(tool_here('toolbox.py', *words), says)


def test_a_missing_toolbox_is_said_with_what_installs_it(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='mmseg is not installed: pip install mmsegmentation'):
        find_tool('mmseg', 'train')
