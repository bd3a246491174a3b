# Trains in seconds: narrow stages, 64 grey images, nothing random after the first weights.
_base_ = 'mmpretrain::_base_/default_runtime.py'

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=10, mean=[73.2], std=[90.2], to_rgb=False),
    backbone=dict(
        type='scopevit.ScopeViT',
        arch=dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 4)),
        in_channels=1,
        rel_pos_drop=0.0,
        norm_eval=True,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, topk=(1,), loss=dict(type='CrossEntropyLoss')),
)
pipeline = [dict(type='Resize', scale=32), dict(type='PackInputs')]
dataset = dict(type='FashionMNIST', data_root='data/fashion_mnist_subset', download=False, pipeline=pipeline)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**dataset, split='train', indices=64),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, split='test', test_mode=True, indices=30),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, end=4)]
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [dict(type='SyncBuffersHook')]
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)
