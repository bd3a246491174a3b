# No paper names "Swin-2G"; Swin-T with two thirds of its width is what fits the table's parameters and MACs.
_base_ = './_base_/in1k_224px.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=64, depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 16]),
        img_size=224,
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=512),
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
)
