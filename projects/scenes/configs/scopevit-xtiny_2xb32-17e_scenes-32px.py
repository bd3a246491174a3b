# Pretraining in miniature: ScopeViT-xtiny on synthetic objects in ImageNet's layout, minutes on two CPU cores.
# `python projects/scenes/make_scenes.py` makes them.
_base_ = '../../../configs/classification/scopevit-xtiny_8xb128-300e_in1k-256px.py'

model = dict(train_cfg=None)  # no mixup and CutMix: they need long schedules

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.7, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs'),
]
loader = dict(num_workers=1, pin_memory=False)
train_dataloader = dict(
    **loader, batch_size=32, drop_last=False, dataset=dict(data_root='data/scenes/imagenet', pipeline=train_pipeline)
)
val_dataloader = dict(**loader, batch_size=50, dataset=dict(data_root='data/scenes/imagenet', pipeline=test_pipeline))
test_dataloader = val_dataloader
gpu = dict(workers='config')

optim_wrapper = dict(
    optimizer=dict(lr=2e-3, fused=True),
    clip_grad=None,
    # Layer scale begins at 1e-6; in so short a training it has to grow faster than the rest.
    paramwise_cfg=dict(custom_keys={'.gamma': dict(lr_mult=10.0, decay_mult=0.0)}),
)
train_cfg = dict(max_epochs=17, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=17, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1, save_best=None))
auto_scale_lr = dict(base_batch_size=64)
randomness = dict(diff_rank_seed=False)  # as when the figures of README.md were measured
