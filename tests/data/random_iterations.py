# The random classifier, trained by iterations without end and with a seed that nobody chose.
_base_ = './random_classifier.py'

train_dataloader = dict(sampler=dict(type='InfiniteSampler', shuffle=True))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=12, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=4, end=12),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4))
randomness = dict(_delete_=True, seed=None, diff_rank_seed=True)
