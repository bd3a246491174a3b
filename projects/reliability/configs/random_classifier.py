# A training of half a minute with all that is random in one, and a checkpoint at each epoch's end.
_base_ = '../../../tests/data/random_classifier.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', by_epoch=True, end=10),
]
train_cfg = dict(max_epochs=10, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
