# The quick start's ScopeViT-xtiny, whose head sees all four stages. The recipe is the quick start's.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'

custom_imports = dict(imports=['projects.example_project.multi_scale_pooling'], allow_failed_imports=False)

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    # A neck of another type: without _delete_ it would be merged with the quick start's.
    neck=dict(
        _delete_=True,
        type='MultiScalePooling',
        in_channels=[32, 64, 128, 256],
        out_channels=256,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
