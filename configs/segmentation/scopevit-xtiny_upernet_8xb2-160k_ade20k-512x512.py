_base_ = './scopevit-tiny_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.05))
