# Evaluates and saves an exponential moving average of the weights (decay 0.9999).
_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

custom_hooks = [dict(type='SyncBuffersHook'), dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
