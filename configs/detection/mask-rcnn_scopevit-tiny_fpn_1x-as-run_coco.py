# The release writes that norms and layer scale do not decay; in effect only names with 'norm' are spared, so that layer
# scale and the batch norms of stem and positional encoding decay. This config does so, too. Here the later embeddings'
# batch norms have other names.
_base_ = './mask-rcnn_scopevit-tiny_fpn_1x_coco.py'

spared = ('norm', *(f'stages.{i}.patch_embed.1.' for i in (1, 2, 3)))
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={name: dict(decay_mult=0.0) for name in spared}))
