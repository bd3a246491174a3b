# ScopeViT-xtiny learns to tell 1,000 formulas apart, from images that are made while it trains, without any files.
_base_ = '../../../configs/classification/scopevit-xtiny_8xb128-300e_in1k-256px.py'

custom_imports = dict(imports=['projects.formula_pretraining.formula_images'], allow_failed_imports=False)

# Mixing is light: with so small an alpha most shares are near 0 or 1. ImageNet's 0.8 and 1.0 need long schedules.
model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=0.1)]))

# Place, size, turn, mirroring and colours vary in the images themselves.
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=3, padding_mode='edge'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='scopevit.PackInputs'),
]
test_pipeline = [dict(type='scopevit.PackInputs')]
formulas = dict(_delete_=True, type='FormulaImages', num_classes=1000, size=32, seed=0)
loader = dict(batch_size=128, num_workers=1, pin_memory=False)
# 200,000 images an epoch, and 5,000 others of the same classes to validate with
train_dataloader = dict(**loader, dataset=dict(**formulas, instances=200, pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(**formulas, instances=5, first=10**6, pipeline=test_pipeline))
test_dataloader = val_dataloader
gpu = dict(workers='config')

optim_wrapper = dict(optimizer=dict(lr=2e-3, fused=True), clip_grad=None)
train_cfg = dict(max_epochs=10, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=10, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2, save_best=None))
auto_scale_lr = dict(base_batch_size=256)
