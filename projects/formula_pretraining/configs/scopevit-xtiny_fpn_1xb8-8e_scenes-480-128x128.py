# Transfer to segmentation: 480 of the synthetic scenes, a fifth of their own recipe's.
_base_ = '../../scenes/configs/scopevit-xtiny_fpn_2xb4-4e_scenes-128x128.py'

train_dataloader = dict(batch_size=8, dataset=dict(indices=480))
# Without pretrained weights the first layers have to learn, too: at 0.9 to the 9th of the rate, not 0.7 to the 9th
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=8, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=2))
