# The quick start with SaliencyMix.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.mixing.methods'], allow_failed_imports=False)
model = dict(train_cfg=dict(augments=dict(type='SaliencyMix', alpha=1.0)))
