_base_ = './mask-rcnn_scopevit-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small'), neck=dict(in_channels=[64, 128, 256, 512]))
