# Tests a model of ImageNet-1K on ImageNet-Sketch.
_base_ = '../scopevit-tiny_8xb128-300e_in1k-256px.py'

dataset = dict(type='scopevit.ImageNetVariant', data_root='data/imagenet-sketch', data_prefix='sketch')
test_dataloader = dict(dataset=dict(_delete_=True, **dataset, pipeline={{_base_.test_pipeline}}))
