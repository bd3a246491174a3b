_base_ = './_base_/in1k_224px.py'

model = dict(
    _delete_=True,
    type='TimmClassifier',
    model_name='coat_mini',
    num_classes=1000,
    loss=_base_.model.head.loss,
    train_cfg=_base_.model.train_cfg,
)
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # blocks share their position encodings
