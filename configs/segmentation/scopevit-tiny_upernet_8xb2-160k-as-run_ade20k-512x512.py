# What the release's code makes of what it writes: batch norms are synchronised in the heads alone, and layer scale and
# the batch norms of stem, positional encoding and heads decay: names with 'norm' are spared. Here the later embeddings'
# batch norms have other names.
_base_ = './scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py'

sync_bn = None
custom_hooks = [dict(type='SyncBuffersHook')]
spared = ('norm', *(f'stages.{i}.patch_embed.1.' for i in (1, 2, 3)))
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={name: dict(decay_mult=0.0) for name in spared}))
