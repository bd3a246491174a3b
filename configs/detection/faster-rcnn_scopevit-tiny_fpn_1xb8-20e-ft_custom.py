# The same for annotations that have boxes but no masks.
_base_ = './mask-rcnn_scopevit-tiny_fpn_1xb8-20e-ft_custom.py'

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
for transform in train_pipeline + test_pipeline:
    if transform['type'] == 'LoadAnnotations':
        transform['with_mask'] = False
del transform
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
