# COCO's keypoints as the only labels, of files in COCO's layout: photographs, or the scenes' figures (README.md).
# Nothing is known of the bodies, so the keypoints of the mesh are scored, by COCO's AP.
_base_ = './hmr_scopevit-xtiny_2xb32-6e_bodies-keypoints-64x64.py'

data_root = 'data/coco/'
load = dict(type='LoadImage')
dataset = dict(_delete_=True, type='CocoDataset', data_root=data_root, data_mode='topdown')
train_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[load, *_base_.train_pipeline],
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix=dict(img='val2017/'),
        pipeline=[load, *_base_.val_pipeline],
        test_mode=True,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='CocoMetric', ann_file=data_root + 'annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator
