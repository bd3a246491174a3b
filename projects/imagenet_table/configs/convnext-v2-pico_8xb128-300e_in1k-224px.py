_base_ = './_base_/in1k_224px.py'

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='pico', layer_scale_init_value=0.0, use_grn=True),
    neck=None,
    head=dict(in_channels=512),
    init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
)
