# Top-down heatmaps (three deconvolutions on stage 4) with the recipe of the paper's release.
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'

model = dict(
    backbone=dict(_delete_=True, type='scopevit.ScopeViT', arch='tiny', drop_path_rate=0.15),
    head=dict(in_channels=256),
)
sync_bn = 'torch'
randomness = dict(seed=None, diff_rank_seed=True)
env_cfg = dict(cudnn_benchmark=True)  # all images have one size
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=256)
