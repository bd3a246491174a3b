"""The toolboxes that configs are of."""

from scopevit.utils.toolboxes import toolbox_of


def test_toolbox_is_known_from_a_name_or_an_installed_file():
    assert toolbox_of('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py') == 'mmdet'
    assert toolbox_of('/x/site-packages/mmseg/.mim/configs/fcn/fcn.py') == 'mmseg'
    assert toolbox_of('configs/mine.py') is None
