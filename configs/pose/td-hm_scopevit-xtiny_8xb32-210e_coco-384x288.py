_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-384x288.py'

model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.1))
