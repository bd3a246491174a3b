_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-384x288.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.2), head=dict(in_channels=512))
optim_wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')  # as the release trains this one
