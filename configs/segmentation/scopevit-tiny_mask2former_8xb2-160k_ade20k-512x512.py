# Mask2Former on ADE20K: mmseg's recipe, in which the backbone learns ten times more slowly than the rest.
_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
)
# The backbone's norms and layer scales do not decay. They are named, longer than the base's key 'backbone': the longest
# key that fits a name decides alone.
spared = ('.mssa.norm', '.gsda.norm', '.ls1.gamma', '.ls2.gamma', '.expand.1.', '.depthwise.1.', '.project.1.')
spared += ('.patch_embed.1.', '.patch_embed.4.', *(f'backbone.stages.{i}.norm.' for i in range(4)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={name: dict(lr_mult=0.1, decay_mult=0.0) for name in spared}))
sync_bn = 'torch'  # the backbone's batch norms, over all GPUs
randomness = dict(seed=None, diff_rank_seed=True)
