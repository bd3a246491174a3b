# The quick start with AttentiveMix: 8 of the 8 x 8 cells of the first stage, an eighth as in the paper.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.mixing.methods'], allow_failed_imports=False)
model = dict(train_cfg=dict(augments=dict(type='AttentiveMix', stage=0, top=8)))
custom_hooks = [dict(type='SyncBuffersHook'), dict(type='MixingHook')]  # a list replaces the quick start's
