# Transfer to 600 images of Fashion-MNIST: 10 batches an epoch, 400 in all.
_base_ = './scopevit-xtiny_1xb64-6e_fashion-mnist-6000-32px.py'

train_dataloader = dict(dataset=dict(per_class=60))
train_cfg = dict(max_epochs=40, val_interval=40)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=40, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=10))
