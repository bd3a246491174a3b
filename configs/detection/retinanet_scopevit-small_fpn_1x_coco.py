_base_ = './retinanet_scopevit-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small'), neck=dict(in_channels=[128, 256, 512]))
