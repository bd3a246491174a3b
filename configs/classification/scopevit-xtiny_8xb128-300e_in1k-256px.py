_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

model = dict(backbone=dict(arch='xtiny'))
