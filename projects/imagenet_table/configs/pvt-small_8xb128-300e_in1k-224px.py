_base_ = './_base_/in1k_224px.py'

model = dict(
    _delete_=True,
    type='HuggingFaceClassifier',
    model_name='{{ fileDirname }}/pvt-small',  # a folder with the model's settings, no weights
    image_size=224,
    num_labels=1000,
    loss=_base_.model.head.loss,
    train_cfg=_base_.model.train_cfg,
)
