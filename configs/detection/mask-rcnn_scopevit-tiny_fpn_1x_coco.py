# Mask R-CNN with FPN on COCO, AdamW as in the paper's release. Inherited is mmdet's 1x schedule: 8 GPUs x 2 images, 12
# epochs, the rate divided by 10 after 8 and 11, 500 iterations of warm-up, 1333x800, flipped with probability 0.5.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

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
