_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py'

model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.1))
