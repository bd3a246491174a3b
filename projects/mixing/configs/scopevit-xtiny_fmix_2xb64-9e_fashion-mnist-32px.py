# The quick start with FMix.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.mixing.methods'], allow_failed_imports=False)
model = dict(train_cfg=dict(augments=dict(type='FMix', alpha=1.0, decay=3.0)))
