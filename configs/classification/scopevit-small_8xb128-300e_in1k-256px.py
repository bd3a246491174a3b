_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=512))
