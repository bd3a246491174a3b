_base_ = '../../../configs/detection/mask-rcnn_scopevit-tiny_fpn_1x_coco.py'

custom_imports = dict(imports=['projects.imagenet_table.models'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='MPViT', arch='xsmall', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[128, 192, 256, 256]),
)
