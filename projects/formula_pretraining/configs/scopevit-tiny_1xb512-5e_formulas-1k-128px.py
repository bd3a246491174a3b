# ScopeViT-tiny on formulas at 128 px, for one GPU: two and a half million images, with --amp.
_base_ = './scopevit-xtiny_1xb1024-5e_formulas-1k-64px.py'

model = dict(backbone=dict(arch='tiny'))
train_pipeline = _base_.train_pipeline
train_pipeline[0].update(crop_size=128, padding=12)
# Half a million images an epoch
train_dataloader = dict(batch_size=512, dataset=dict(size=128, instances=500, pipeline=train_pipeline))
val_dataloader = dict(batch_size=512, dataset=dict(size=128))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=512)
