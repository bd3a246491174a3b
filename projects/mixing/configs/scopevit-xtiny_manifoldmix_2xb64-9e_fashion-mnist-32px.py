# The quick start with ManifoldMix, at the images or before any later stage.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.mixing.methods'], allow_failed_imports=False)
model = dict(train_cfg=dict(augments=dict(type='ManifoldMix', alpha=2.0)))
custom_hooks = [dict(type='SyncBuffersHook'), dict(type='MixingHook')]  # a list replaces the quick start's
