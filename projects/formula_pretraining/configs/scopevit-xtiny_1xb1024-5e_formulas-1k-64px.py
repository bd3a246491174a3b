# ScopeViT-xtiny on formulas at 64 px, for one GPU: five million images, with --amp.
_base_ = './scopevit-xtiny_2xb128-10e_formulas-1k-32px.py'

train_pipeline = _base_.train_pipeline
train_pipeline[0].update(crop_size=64, padding=6)
loader = dict(batch_size=1024, pin_memory=True)
# A million images an epoch
train_dataloader = dict(**loader, dataset=dict(size=64, instances=1000, pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(size=64))
test_dataloader = val_dataloader
gpu = dict(workers='auto')

train_cfg = dict(max_epochs=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=1024)
