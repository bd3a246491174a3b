# The release writes that norms and layer scale do not decay; in effect only names with 'norm' are spared, so that layer
# scale and the batch norms of stem and positional encoding decay. This config does so, too.
_base_ = './mask-rcnn_scopevit-tiny_fpn_1x_coco.py'

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={'norm': dict(decay_mult=0.0)}))
