# The model resizes its input to 240 pixels for one branch and 224 for the other.
_base_ = './_base_/in1k_224px.py'

model = dict(
    _delete_=True,
    type='TimmClassifier',
    model_name='crossvit_small_240',
    num_classes=1000,
    loss=_base_.model.head.loss,
    train_cfg=_base_.model.train_cfg,
)
