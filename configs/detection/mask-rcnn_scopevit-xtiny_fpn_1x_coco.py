_base_ = './mask-rcnn_scopevit-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(arch='xtiny', drop_path_rate=0.05))
