# P2T-T of the ImageNet table in the quick start's recipe, at the rate that it chose there of two.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.imagenet_table.models'], allow_failed_imports=False)
model = dict(backbone=dict(_delete_=True, type='P2T', arch='tiny', in_channels=1), head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
