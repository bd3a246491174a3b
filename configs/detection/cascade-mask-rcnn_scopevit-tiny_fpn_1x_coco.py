# Cascade Mask R-CNN with FPN on COCO: mmdet's 1x schedule; backbone and optimizer as for Mask R-CNN.
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'.gamma': dict(decay_mult=0.0)}),
)
randomness = dict(seed=None, diff_rank_seed=True)  # each process drops branches of its own
# Batch norms of the processes, which see different images, are averaged before validation and saving.
custom_hooks = [dict(type='SyncBuffersHook')]
