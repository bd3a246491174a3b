_base_ = './scopevit-tiny_fpn_8xb4-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.05))
