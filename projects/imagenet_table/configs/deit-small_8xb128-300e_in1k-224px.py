_base_ = './_base_/in1k_224px.py'

model = dict(
    backbone=dict(_delete_=True, type='VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
    neck=None,
    head=dict(in_channels=384),
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
)
