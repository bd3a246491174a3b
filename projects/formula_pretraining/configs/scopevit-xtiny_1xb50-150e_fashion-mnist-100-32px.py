# Transfer to 100 images of Fashion-MNIST: 2 batches an epoch, 300 in all.
_base_ = './scopevit-xtiny_1xb64-6e_fashion-mnist-6000-32px.py'

train_dataloader = dict(batch_size=50, dataset=dict(per_class=10))
train_cfg = dict(max_epochs=150, val_interval=150)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=150, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=50))
