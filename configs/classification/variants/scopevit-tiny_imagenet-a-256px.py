# Tests a model of ImageNet-1K on ImageNet-A: 200 of its classes, among which alone it chooses.
_base_ = '../scopevit-tiny_8xb128-300e_in1k-256px.py'

dataset = dict(type='scopevit.ImageNetVariant', data_root='data/imagenet-a', subset='a')
test_dataloader = dict(dataset=dict(_delete_=True, **dataset, pipeline={{_base_.test_pipeline}}))
test_evaluator = dict(_delete_=True, type='scopevit.SubsetAccuracy')
