_base_ = './_base_/in1k_224px.py'

model = dict(backbone=dict(_delete_=True, type='P2T', arch='tiny'), head=dict(in_channels=384))
