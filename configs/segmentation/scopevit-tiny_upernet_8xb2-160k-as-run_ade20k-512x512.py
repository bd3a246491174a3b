# What the release's code makes of what it writes: batch norms are synchronised in the heads alone, and layer scale and
# the batch norms of stem and positional encoding decay.
_base_ = './scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py'

sync_bn = None
custom_hooks = [dict(type='SyncBuffersHook')]
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={'norm': dict(decay_mult=0.0)}))
