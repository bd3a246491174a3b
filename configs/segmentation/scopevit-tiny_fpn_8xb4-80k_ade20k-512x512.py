# Semantic FPN on ADE20K with the recipe of the paper's release: twice the batch, half the iterations of UperNet.
_base_ = 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
# At test time images are also resized to a multiple of 32, the last stage's stride; labels stay as they are.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

sync_bn = 'torch'  # the backbone's batch norms, too, over all GPUs
randomness = dict(seed=None, diff_rank_seed=True)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),  # on norms and layer scale, too
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=80000)]
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(enable=False, base_batch_size=32)
