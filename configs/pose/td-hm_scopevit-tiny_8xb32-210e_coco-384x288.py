# Top-down heatmaps (three deconvolutions on stage 4) with the recipe of the paper's release.
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-384x288.py'

# The release has heat maps of sigma 2 at both sizes; mmpose's base for this one has 3.
codec = dict(type='MSRAHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=2)
model = dict(
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', drop_path_rate=0.15),
    head=dict(in_channels=256, decoder=codec),
)
sync_bn = 'torch'
randomness = dict(seed=None, diff_rank_seed=True)
env_cfg = dict(cudnn_benchmark=True)  # all images have one size
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomHalfBody'),
    dict(type='RandomBBoxTransform'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=256)
