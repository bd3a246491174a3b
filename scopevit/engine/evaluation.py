"""Predictions of a test run as a file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import DumpResults

from ..registry import METRICS

# What a test sample carries besides its prediction: the data set has the ground truth, and of a
# segmentation's scores for every class and pixel (40 MB for one of COCO's images) the labels say enough.
_LEFT_OUT = ('seg_logits', 'gt_instances', 'ignored_instances', 'gt_sem_seg', 'gt_panoptic_seg', 'gt_fields')


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """Write the predictions of a test in a form that fits into memory, whatever the task.

    MMEngine's class keeps every mask and score map as it is: hundreds of GB for COCO or ADE20K.
    Here masks become COCO's RLE and label maps small integers. The file is a pickled list of
    dicts, one for each sample in the data set's order.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        slim = []
        for sample in data_samples:
            sample = {key: value for key, value in sample.items() if key not in _LEFT_OUT}
            for key in ('pred_instances', 'pred_panoptic_seg', 'pred_sem_seg'):
                if key in sample:
                    sample[key] = _shrink(dict(sample[key].items()))
            if {'pred_score', 'pred_label'} <= set(sample) and sample['pred_label'].numel() == 1:
                sample['pred_label'] = sample['pred_score'].argmax(keepdim=True)  # merged scores have another one
            slim.append(sample)
        super().process(data_batch, slim)


def _shrink(prediction: dict) -> dict:
    masks = prediction.get('masks')
    if masks is not None and len(masks) and not isinstance(masks[0], dict):
        from mmdet.structures.mask import encode_mask_results  # only mmdet predicts masks

        prediction['masks'] = encode_mask_results(np.asarray(getattr(masks, 'cpu', lambda: masks)()))
    for key in ('sem_seg', 'data'):
        labels = prediction.get(key)
        if labels is not None and not labels.is_floating_point():
            largest = int(labels.max()) if labels.numel() else 0
            kind = np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.int32
            prediction[key] = labels.cpu().numpy().astype(kind)
    return prediction
