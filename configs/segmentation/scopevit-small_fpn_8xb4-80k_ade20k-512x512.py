_base_ = './scopevit-tiny_fpn_8xb4-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='small'), neck=dict(in_channels=[64, 128, 256, 512]))
