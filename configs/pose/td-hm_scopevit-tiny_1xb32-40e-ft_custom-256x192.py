# Fine-tune heatmaps on one's own people: data/custom/{train,val}/ and data/custom/annotations/{train,val}.json.
# Start from an ImageNet or COCO checkpoint with --pretrained; see docs/own_data.md.
_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py'

data_root = 'data/custom/'
train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='annotations/train.json', data_prefix=dict(img='train/')),
)
# Boxes of the annotations, not of a detector.
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='annotations/val.json', data_prefix=dict(img='val/'), bbox_file=None),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# Layers learn more slowly the nearer they are to the image, by a factor 0.8 for each block.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.05),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8, norm_decay_mult=0.0, custom_keys={'.gamma': dict(decay_mult=0.0)}),
)
train_cfg = dict(max_epochs=40, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=40, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=32)
