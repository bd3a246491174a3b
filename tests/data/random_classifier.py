# The toy classifier with all that is random in a training, averaged weights and many groups of parameters.
_base_ = './toy_classifier.py'

model = dict(
    backbone=dict(rel_pos_drop=0.125, drop_path_rate=0.3, norm_eval=False),
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        pipeline=[
            dict(type='RandomResizedCrop', scale=32),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
    ),
)
custom_hooks = [
    dict(type='EMAHook', momentum=0.1, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(type='scopevit.SyncBuffersHook'),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),  # makes a group of each parameter
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', by_epoch=True, end=3),
]
train_cfg = dict(max_epochs=3, val_interval=1)
