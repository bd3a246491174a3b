# Fine-tune Semantic FPN on one's own label maps: data/custom/{images,masks}/{train,val}/.
# Start from an ImageNet checkpoint with --pretrained; see docs/own_data.md.
_base_ = './scopevit-tiny_fpn_8xb4-80k_ade20k-512x512.py'

metainfo = dict(classes=('background', 'object'))  # names of the class numbers 0, 1, ...
model = dict(decode_head=dict(num_classes=2))

# Class 0 is a class like the others, while ADE20K's 0 means unlabelled.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root='data/custom',
    metainfo=metainfo,
    img_suffix='.jpg',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    dataset=dict(**dataset, data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader

# Layers learn more slowly the nearer they are to the image, by a factor 0.8 for each block.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4, weight_decay=0.05),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8, norm_decay_mult=0.0, custom_keys={'.gamma': dict(decay_mult=0.0)}),
)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=60, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=True, begin=2, end=60, convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=5, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=True)
# Batch norms of the processes, if there are several, are averaged before validation and saving.
custom_hooks = [dict(type='SyncBuffersHook')]
auto_scale_lr = dict(base_batch_size=8)
