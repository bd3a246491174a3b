# Fine-tune a slim ATSS on one's own boxes in small images, also on a CPU: data as for Faster R-CNN.
# Start with --pretrained; see docs/own_data.md.
_base_ = './retinanet_scopevit-xtiny_fpn_1x_coco.py'

# Images are scaled to fit into this. A config that inherits this one sets the pipelines instead, see docs/own_data.md.
size = (320, 320)
metainfo = dict(classes=('object',))  # categories of the annotation files, in their order
# A quarter of the benchmark's channels and half of its convolutions do for small images; with group norms, which its
# neck and head lack, a short training is enough. ATSS has one anchor at a place, of 32 pixels on the finest map, where
# RetinaNet has nine, and learnt more from few objects: see projects/tree_crowns.
norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    type='ATSS',
    neck=dict(out_channels=64, norm_cfg=norm_cfg),
    bbox_head=dict(
        _delete_=True,
        type='ATSSHead',
        num_classes=1,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(_delete_=True, assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=size, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='YOLOXHSVRandomAug'),  # of colours
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data = dict(data_root='data/custom/', metainfo=metainfo)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(**data, ann_file='annotations/train.json', data_prefix=dict(img='train/'), pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(**data, ann_file='annotations/val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/custom/annotations/val.json')
test_evaluator = val_evaluator

# Layers learn more slowly the nearer they are to the image, by a factor 0.9 for each block.
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3, fused=True),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
train_cfg = dict(max_epochs=40, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=3, end=40, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=4)
