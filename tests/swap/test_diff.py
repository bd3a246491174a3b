"""Telling what a swap changes."""

from helpers import small_config
from scopevit.swap import list_changes, show_diff, swap_backbone


def test_changes_are_named_by_their_keys():
    old = small_config()
    old.optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
    new = swap_backbone(old, 'xtiny', check=lambda cfg: None)
    changed = {line.split(':')[0] for line in list_changes(old, new)}
    preprocessor = {f'data_preprocessor.{name}' for name in ('mean', 'std', 'to_rgb')}
    assert changed == {'model.backbone', 'model.head.in_channels'} | preprocessor
    assert 'model.head.in_channels: 512 -> 256' in list_changes(old, new)
    assert list_changes(old, old) == []


def test_settings_that_come_and_go():
    old, new = small_config(), small_config()
    old.model.pretrained = 'torchvision://resnet18'
    new.model.init_cfg = None
    assert list_changes(old, new) == [
        "model.pretrained: removed 'torchvision://resnet18'",
        'model.init_cfg: added None',
    ]


def test_a_diff_compares_line_by_line():
    old, new = small_config(), small_config()
    new.model.head.num_classes = 7
    lines = [line for line in show_diff(old, new).splitlines() if line[:1] in '+-']
    assert lines[:2] == ['--- before', '+++ after']
    assert [line[0] for line in lines[2:]] == ['-', '+']
    assert 'num_classes=5' in lines[2]
    assert 'num_classes=7' in lines[3]
