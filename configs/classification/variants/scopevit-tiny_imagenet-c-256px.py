# Tests a model of ImageNet-1K on ImageNet-C: 15 corruptions in 5 severities. Its images are 224x224, cropped already.
_base_ = '../scopevit-tiny_8xb128-300e_in1k-256px.py'

corruptions = (
    'gaussian_noise', 'shot_noise', 'impulse_noise', 'defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur', 'snow',
    'frost', 'fog', 'brightness', 'contrast', 'elastic_transform', 'pixelate', 'jpeg_compression',
)  # fmt: skip
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=256),
    *_base_.test_pipeline[2:],
]
dataset = dict(type='scopevit.ImageNetVariant', data_root='data/imagenet-c', pipeline=test_pipeline)
datasets = [dict(dataset, data_prefix=f'{name}/{level}') for name in corruptions for level in (1, 2, 3, 4, 5)]
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=datasets))
test_evaluator = dict(_delete_=True, type='scopevit.CorruptionError')
