# Pose, shape and camera of synthetic bodies, with all their labels in the losses, for two CPU cores. Bodies are drawn
# while they are asked for; nothing has to be prepared.
_base_ = 'mmpose::_base_/default_runtime.py'

custom_imports = dict(
    imports=['projects.human_mesh.data', 'projects.human_mesh.head', 'projects.human_mesh.metrics'],
    allow_failed_imports=False,
)

model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='scopevit.ScopeViT', arch='xtiny'),
    head=dict(
        type='BodyHead',
        in_channels=256,
        losses=dict(keypoints=1.0, joints=10.0, vertices=5.0, rotations=10.0, shape=0.02),
    ),
    test_cfg=dict(flip_test=False),
)

input_size = (64, 64)
train_pipeline = [
    dict(type='GetBBoxCenterScale', padding=1.2),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomBBoxTransform', scale_factor=(0.85, 1.15), rotate_factor=30, shift_factor=0.08),
    dict(type='TopdownAffine', input_size=input_size),
    dict(type='BodyLabels'),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    dict(type='GetBBoxCenterScale', padding=1.2),
    dict(type='TopdownAffine', input_size=input_size),
    dict(type='BodyLabels'),
    dict(type='PackPoseInputs'),
]
loader = dict(num_workers=1, persistent_workers=True)
train_dataloader = dict(
    **loader,
    batch_size=32,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='PosedBodies', count=12000, pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=64,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='PosedBodies', count=1000, split='val', pipeline=val_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='BodyError')
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=6, convert_to_iter_based=True),
]
# Saved after each epoch, not after ten as mmpose does: a training that is broken off can go on.
# Batch norms of the processes, which see different images, are averaged before validation and saving by the
# SyncBuffersHook of mmpose's default runtime.
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=64)
