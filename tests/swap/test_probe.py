"""What is learnt of a backbone by running it."""

from scopevit.swap.probe import Level, probe_backbone


def test_probe_learns_channels_and_strides():
    resnet = dict(type='ResNet', depth=18, out_indices=(1, 3), init_cfg=dict(type='Pretrained', checkpoint='none'))
    assert probe_backbone(resnet, 'mmdet', 3) == [Level(128, 8), Level(512, 32)]
    assert probe_backbone({**resnet, 'dilations': (1, 1, 2, 4), 'strides': (1, 2, 1, 1)}, 'mmseg', 3) == [
        Level(128, 8),
        Level(512, 8),
    ]
    vit = dict(type='VisionTransformer', arch='deit-tiny', img_size=96)
    assert probe_backbone(vit, 'mmpretrain', 3) == [Level(192, 0)]
