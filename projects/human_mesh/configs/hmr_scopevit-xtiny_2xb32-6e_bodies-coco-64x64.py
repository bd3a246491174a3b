# Synthetic bodies with all labels and COCO's people with keypoints alone, in one training: of each image those losses
# for which it has labels. Scored as the config that it inherits.
_base_ = './hmr_scopevit-xtiny_2xb32-6e_coco-keypoints-64x64.py'

model = dict(
    head=dict(
        losses=dict(
            _delete_=True, keypoints=5.0, joints=10.0, vertices=5.0, rotations=10.0, shape=0.02, shape_prior=0.02
        )
    )
)
bodies = dict(
    type='PosedBodies',
    count=12000,
    # The first step of the pipeline loads an image; these are loaded.
    pipeline=_base_.train_dataloader.dataset.pipeline[1:],
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CombinedDataset',
        metainfo=dict(from_file='configs/_base_/datasets/coco.py'),
        datasets=[bodies, _base_.train_dataloader.dataset],
        pipeline=[],
    )
)
