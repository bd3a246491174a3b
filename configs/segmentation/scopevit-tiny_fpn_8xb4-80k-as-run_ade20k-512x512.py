# What the release's code makes of what it writes: batch norms are synchronised in the head alone.
_base_ = './scopevit-tiny_fpn_8xb4-80k_ade20k-512x512.py'

sync_bn = None
custom_hooks = [dict(type='SyncBuffersHook')]
