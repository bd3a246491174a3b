# ConvNeXt V2-P of the ImageNet table in the quick start's recipe, at the rate that it chose there of two.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='pico', in_channels=1, layer_scale_init_value=0.0, use_grn=True),
    neck=None,
    head=dict(in_channels=512),
    init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
