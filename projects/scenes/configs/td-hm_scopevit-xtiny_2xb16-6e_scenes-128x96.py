# Top-down heatmaps on synthetic figures in COCO's layout, minutes on two CPU cores.
# `python projects/scenes/make_scenes.py` makes them; start with --pretrained.
_base_ = '../../../configs/pose/td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py'

codec = dict(type='MSRAHeatmap', input_size=(96, 128), heatmap_size=(24, 32), sigma=1.5, unbiased=True)
model = dict(head=dict(deconv_out_channels=(96, 96, 96), decoder=codec))

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomBBoxTransform', scale_factor=(0.65, 1.35), rotate_factor=30),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
data_root = 'data/scenes/coco/'
loader = dict(num_workers=1)
train_dataloader = dict(**loader, batch_size=16, dataset=dict(data_root=data_root, pipeline=train_pipeline))
# Boxes of the annotations, not of a detector.
val_dataloader = dict(**loader, dataset=dict(data_root=data_root, bbox_file=None, pipeline=val_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator

# Fine-tuning: layers learn more slowly the nearer they are to the image.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0, custom_keys={'.gamma': dict(decay_mult=0.0)}),
)
train_cfg = dict(max_epochs=6, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=6, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=3, max_keep_ckpts=1, save_best=None))
# Batch norms of the processes, which see different images, are averaged before validation and saving.
custom_hooks = [dict(type='SyncBuffersHook')]
auto_scale_lr = dict(base_batch_size=32)
randomness = dict(diff_rank_seed=False)  # as when the figures of README.md were measured
