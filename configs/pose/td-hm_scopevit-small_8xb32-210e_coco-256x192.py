_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.2), head=dict(in_channels=512))
