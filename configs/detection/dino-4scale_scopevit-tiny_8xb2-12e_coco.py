# DINO with four scales on COCO: mmdet's recipe, in which the backbone learns ten times more slowly than the rest.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'

model = dict(
    # The fourth scale is made from the last map: that at stride 4 is not asked for.
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 256]),
)
# The backbone's norms and layer scales do not decay. They are named, longer than the base's key 'backbone': the longest
# key that fits a name decides alone.
spared = ('.mssa.norm', '.gsda.norm', '.ls1.gamma', '.ls2.gamma', '.expand.1.', '.depthwise.1.', '.project.1.')
spared += ('.patch_embed.1.', '.patch_embed.4.', *(f'backbone.stages.{i}.norm.' for i in range(4)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={name: dict(lr_mult=0.1, decay_mult=0.0) for name in spared}))
randomness = dict(seed=None, diff_rank_seed=True)  # each process drops branches of its own
# Batch norms of the processes, which see different images, are averaged before validation and saving.
custom_hooks = [dict(type='SyncBuffersHook')]
