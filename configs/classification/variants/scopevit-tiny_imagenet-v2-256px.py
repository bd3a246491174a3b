# Tests a model of ImageNet-1K on ImageNetV2, in folders 0 to 999; data_prefix is one of its three selections.
_base_ = '../scopevit-tiny_8xb128-300e_in1k-256px.py'

dataset = dict(
    type='scopevit.ImageNetVariant',
    data_root='data/imagenetv2',
    data_prefix='imagenetv2-matched-frequency-format-val',
)
test_dataloader = dict(dataset=dict(_delete_=True, **dataset, pipeline={{_base_.test_pipeline}}))
