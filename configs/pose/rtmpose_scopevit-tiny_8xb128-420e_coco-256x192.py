# RTMPose on COCO: mmpose's recipe with a quarter of its learning rate, for 1,024 persons.
_base_ = 'mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_coco-256x192.py'

model = dict(
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', drop_path_rate=0.15),
    head=dict(in_channels=256),
)
# The base's blurs and dropped rectangles need albumentations, whose newer versions do not know the rectangles' options.
# mmdet has rectangles; blurs, of one image in ten, are left out.
cut_out = dict(type='mmdet.CutOut', n_holes=1, cutout_ratio=[(w / 10, h / 10) for w in (2, 3, 4) for h in (2, 3, 4)])
seldom = dict(type='RandomApply', transforms=[cut_out], prob=0.5)
train_pipeline = [cut_out if step.type == 'Albumentation' else step for step in _base_.train_pipeline]
train_pipeline_stage2 = [seldom if step.type == 'Albumentation' else step for step in _base_.train_pipeline_stage2]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
custom_hooks = [_base_.custom_hooks[0], dict(_base_.custom_hooks[1], switch_pipeline=train_pipeline_stage2)]
# The usual person detections, as for heatmaps; the base takes the annotations' boxes.
detections = 'data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json'
val_dataloader = dict(dataset=dict(bbox_file=detections))
test_dataloader = val_dataloader

sync_bn = 'torch'
randomness = dict(seed=None, diff_rank_seed=True)
env_cfg = dict(cudnn_benchmark=True)  # all images have one size
# Layer scales do not decay; the head's own gamma does, as in the base.
spared = {name: dict(decay_mult=0.0) for name in ('.ls1.gamma', '.ls2.gamma')}
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys=spared))
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], eta_min=5e-5)]
