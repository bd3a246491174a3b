# Goes on with a model trained at 256 px, head included, at 384 px: --cfg-options load_from=CHECKPOINT.
# The paper's release has no such recipe; length, rate and decay are those usual for such fine-tuning.
_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

train_pipeline = [
    _base_.train_pipeline[0],
    dict(_base_.train_pipeline[1], scale=384),
    *_base_.train_pipeline[2:],
]
test_pipeline = [  # the short side as a whole
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=384),
    dict(_base_.test_pipeline[2], crop_size=384),
    _base_.test_pipeline[3],
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=2e-5, weight_decay=1e-8))
train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, end=30),
]
auto_scale_lr = dict(base_batch_size=512)
