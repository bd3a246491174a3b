# Transfer to 6,000 images of Fashion-MNIST: the quick start's recipe, in three channels and shorter.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'

custom_imports = dict(imports=['projects.formula_pretraining.few_fashion_mnist'], allow_failed_imports=False)

model = dict(data_preprocessor=dict(mean=[73.2] * 3, std=[90.2] * 3), backbone=dict(in_channels=3))
train_dataloader = dict(dataset=dict(type='FewFashionMNIST', per_class=600))
val_dataloader = dict(dataset=dict(type='FewFashionMNIST', per_class=100))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=6, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=6, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=64)
