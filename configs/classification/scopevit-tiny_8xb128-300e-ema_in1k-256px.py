# Evaluates and saves an exponential moving average of weights and batch norms' statistics (decay 0.9999).
_base_ = './scopevit-tiny_8xb128-300e_in1k-256px.py'

custom_hooks = [
    dict(type='scopevit.SyncBuffersHook'),  # also those of the average
    dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]
