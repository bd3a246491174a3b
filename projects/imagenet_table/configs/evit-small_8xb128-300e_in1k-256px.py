# Keep rate 0.6, falling from 1 between epochs 10 and 100.
_base_ = './_base_/in1k_256px.py'

model = dict(
    backbone=dict(_delete_=True, type='EViT', arch='small', img_size=256, keep_rate=0.6, fuse_tokens=True),
    neck=None,
    head=dict(in_channels=384),
)
custom_hooks = [dict(type='SyncBuffersHook'), dict(type='EViTKeepRateHook', begin=1 / 30, end=1 / 3)]
