# The quick start with mmpretrain's ResizeMix.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
model = dict(train_cfg=dict(augments=dict(type='ResizeMix', alpha=1.0)))
