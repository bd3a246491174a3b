_base_ = '../../../configs/segmentation/scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py'

custom_imports = dict(imports=['projects.imagenet_table.models'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='Shunted', arch='tiny', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
