# Semantic FPN on synthetic scenes in ADE20K's layout, minutes on two CPU cores.
# `python projects/scenes/make_scenes.py` makes them; start with --pretrained.
_base_ = '../../../configs/segmentation/scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512.py'

crop_size = (128, 128)
model = dict(
    data_preprocessor=dict(size=crop_size),
    neck=dict(out_channels=64, norm_cfg=dict(type='BN')),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(1024, 128), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1024, 128), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
data_root = 'data/scenes/ade/ADEChallengeData2016'
loader = dict(num_workers=1)
train_dataloader = dict(
    **loader,
    batch_size=4,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(**loader, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

# Fine-tuning: layers learn more slowly the nearer they are to the image.
optim_wrapper = dict(
    optimizer=dict(lr=3e-3, weight_decay=0.05, fused=True),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0, custom_keys={'.gamma': dict(decay_mult=0.0)}),
)
# Epochs instead of iterations: batch norms of the processes, which see different images, are
# averaged after each, before validation and saving.
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=4, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=True)
custom_hooks = [dict(type='SyncBuffersHook')]
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(diff_rank_seed=False)  # as when the figures of README.md were measured
