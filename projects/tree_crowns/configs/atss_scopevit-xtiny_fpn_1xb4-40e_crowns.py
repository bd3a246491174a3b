# ATSS on tree crowns in aerial photographs, minutes on one CPU core.
# `projects/tree_crowns/make_crowns.py` makes the data; start with --pretrained.
_base_ = '../../../configs/detection/atss_scopevit-xtiny_fpn_1xb4-40e-ft_custom-320px.py'

# Training sees parts of the tiles, in nearly their own scale, from all sides; tiles as large as these
# parts are tested.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(400, 400), ratio_range=(0.8, 1.4), keep_ratio=True),
    dict(type='YOLOXHSVRandomAug'),  # of colours
    dict(type='RandomCrop', crop_size=(256, 256)),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (256, 256)

data = dict(data_root='data/crowns/', metainfo=dict(classes=('tree',)))
train_dataloader = dict(dataset=dict(**data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**data, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/crowns/annotations/val.json')
test_evaluator = val_evaluator
