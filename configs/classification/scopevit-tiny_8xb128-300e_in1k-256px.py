# ScopeViT-tiny on ImageNet-1K with the recipe of the paper's release.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_256.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='scopevit.ScopeViT', arch='tiny'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# The base's training pipeline is the release's: RandAugment m9-mstd0.5-inc1, random erasing 0.25 in pixel mode.
# Transforms of scopevit draw the same in half the time; resized images are at most 2 of 255 from Pillow's.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='scopevit.RandomResizedCrop', scale=256, backend='torch', interpolation='bicubic'),
    _base_.train_pipeline[2],  # flip
    dict(_base_.train_pipeline[3], type='scopevit.RandAugment'),
    dict(_base_.train_pipeline[4], type='scopevit.RandomErasing'),
    dict(type='scopevit.PackInputs'),
]
# The base's evaluation crops 0.875; the release crops 0.9 = 256 / 284.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='scopevit.ResizeEdge', scale=284, edge='short', backend='torch', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=256),
    dict(type='scopevit.PackInputs'),
]
loader = dict(batch_size=128, persistent_workers=True, pin_memory=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(**loader, drop_last=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
gpu = dict(workers='auto')  # the base's five would let a GPU wait

# lr 1e-3 for 1024 images, 5 epochs of warm-up from 1e-5, cosine to 1e-6.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, end=300),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='auto'))
# Processes see different images, so their batch norms differ; average them after each epoch,
# before validation and saving.
custom_hooks = [dict(type='SyncBuffersHook')]
# Each process draws its own mixup, CutMix and boxes.
randomness = dict(seed=None, diff_rank_seed=True)
env_cfg = dict(cudnn_benchmark=True)  # all images have one size
auto_scale_lr = dict(base_batch_size=1024)
