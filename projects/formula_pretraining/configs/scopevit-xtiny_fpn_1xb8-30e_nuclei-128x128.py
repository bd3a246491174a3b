# Transfer to nuclei in a microscopy image: Semantic FPN as for the synthetic scenes, on one's own label maps.
# `projects/formula_pretraining/make_nuclei.py` makes the data.
_base_ = '../../../configs/segmentation/scopevit-tiny_fpn_1xb8-60e-ft_custom-512x512.py'

crop_size = (128, 128)
metainfo = dict(classes=('background', 'nucleus'))
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch='xtiny'),
    neck=dict(out_channels=64, norm_cfg=dict(type='BN')),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(1024, 128), ratio_range=(1.0, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
data = dict(data_root='data/nuclei', metainfo=metainfo, img_suffix='.png')
train_dataloader = dict(num_workers=1, dataset=dict(**data, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(**data, pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=3e-3, fused=True), paramwise_cfg=dict(layer_decay_rate=0.9))
train_cfg = dict(max_epochs=30, val_interval=30)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=3, end=30, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
