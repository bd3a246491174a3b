# Transfer to tree crowns: the recipe of projects/tree_crowns in half of its length.
_base_ = '../../tree_crowns/configs/atss_scopevit-xtiny_fpn_1xb4-40e_crowns.py'

train_cfg = dict(max_epochs=20, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
