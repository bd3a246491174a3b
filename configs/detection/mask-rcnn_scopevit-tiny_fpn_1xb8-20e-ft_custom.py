# Fine-tune Mask R-CNN on one's own objects: data/custom/{train,val}/ and data/custom/annotations/{train,val}.json.
# Start from an ImageNet checkpoint with --pretrained; see docs/own_data.md.
_base_ = './mask-rcnn_scopevit-tiny_fpn_ms-3x_coco.py'

metainfo = dict(classes=('object',))  # categories of the annotation files, in their order
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
)
data_root = 'data/custom/'
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='annotations/train.json', data_prefix=dict(img='train/')
    ),
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, ann_file='annotations/val.json', data_prefix=dict(img='val/')),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# Layers learn more slowly the nearer they are to the image, by a factor 0.8 for each block.
optim_wrapper = dict(constructor='scopevit.LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.8))
train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=8)
