# What the rows share: ScopeViT's ImageNet recipe at 256 pixels, to which a row adds its model.
_base_ = '../../../../configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py'

custom_imports = dict(imports=['projects.imagenet_table.models'], allow_failed_imports=False)
no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(cls_token=no_decay, pos_embed=no_decay, position_embeddings=no_decay))
)
