# Fine-tune ScopeViT-tiny on one's own images: data/custom/{train,val}/<class>/*.jpg.
# Start from an ImageNet checkpoint with --pretrained; see docs/own_data.md.
_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

model = dict(
    backbone=dict(drop_path_rate=0.1),
    head=dict(num_classes=10),  # as many as there are class folders
    train_cfg=None,  # no mixup and CutMix: they need long schedules
)
data_preprocessor = dict(num_classes=10)
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/custom')
train_dataloader = dict(
    batch_size=64, drop_last=False, dataset=dict(**dataset, data_prefix='train', pipeline={{_base_.train_pipeline}})
)
val_dataloader = dict(batch_size=64, dataset=dict(**dataset, data_prefix='val', pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

# Layers learn more slowly the nearer they are to the image, by a factor 0.8 for each block.
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    constructor='scopevit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=30, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
