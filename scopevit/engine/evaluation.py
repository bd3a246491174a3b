"""Predictions of a test run as a file."""

import io
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log

from ..registry import METRICS
from ..utils.config import as_list
from ..utils.errors import UserError, one_line
from ..utils.files import whole_file
from ..utils.shipped import tool_command

# What a test sample carries besides its prediction: the data set has the ground truth, and of a
# segmentation's scores for every class and pixel (40 MB for one of COCO's images) the labels say enough.
_LEFT_OUT = ('seg_logits', 'gt_instances', 'ignored_instances', 'gt_sem_seg', 'gt_panoptic_seg', 'gt_fields')
# What such a file consists of besides plain data: modules, and names in them.
_ALLOWED = {
    'collections': {'OrderedDict'},
    'copyreg': {'_reconstructor'},
    'builtins': {'object', 'set', 'slice'},
    '_codecs': {'encode'},
    'torch': {'Size', 'device', *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    'torch._utils': {'_rebuild_tensor_v2'},
    'numpy': {'ndarray', 'dtype'},
    'numpy.core.multiarray': {'_reconstruct', 'scalar'},
    'numpy._core.multiarray': {'_reconstruct', 'scalar'},
    'numpy._core.numeric': {'_frombuffer'},
    'numpy.core.numeric': {'_frombuffer'},
    'mmengine.structures.instance_data': {'InstanceData'},
    'mmengine.structures.pixel_data': {'PixelData'},
    'mmengine.structures.label_data': {'LabelData'},
    'mmengine.structures.base_data_element': {'BaseDataElement'},
}


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """Write the predictions of a test in a form that fits into memory, whatever the task.

    MMEngine's class keeps every mask and score map as it is: hundreds of GB for COCO or ADE20K.
    Here masks become COCO's RLE and label maps small integers. The file is a pickled list of
    dicts, one for each sample in the data set's order.
    """

    default_prefix = 'predictions'  # of no value, but MMEngine warns where there is none

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

    def compute_metrics(self, results: list) -> dict:
        """Write the file, all or nothing.

        Raises:
            UserError: If it cannot be written.
        """
        with whole_file(self.out_file_path) as temporary, open(temporary, 'wb') as file:
            pickle.dump(results, file)
        print_log(f'Predictions: {self.out_file_path}', logger='current')
        return {}


def dump_predictions(cfg: Config, path: str) -> None:
    """Let the test write what the model predicts for every sample."""
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise UserError('this config has no test_dataloader or no test_evaluator')
    dump = dict(type='scopevit.DumpPredictions', out_file_path=path)
    evaluator = cfg.test_evaluator
    if isinstance(evaluator, dict) and 'metrics' in evaluator:  # a whole evaluator, as for several data sets
        evaluator['metrics'] = [*as_list(evaluator['metrics']), dump]
    else:
        cfg.test_evaluator = [*as_list(evaluator), dump]


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


class _Reader(pickle.Unpickler):
    """Makes nothing but what predictions consist of, so that a file from anywhere runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda content: torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f'{module}.{name} is no prediction, and was not executed')
        return super().find_class(module, name)


def read_predictions(path: str) -> list[dict]:
    """Read what :class:`DumpPredictions` wrote.

    Returns:
        A dict for each sample.

    Raises:
        UserError: If there is none, it is another file, or holds anything that could run code.
    """
    writer = tool_command('test.py', 'test')
    if os.path.isdir(path):
        raise UserError(f'{path} is a folder; name the file of predictions that {writer} wrote there')
    if not os.path.isfile(path):
        raise UserError(f'{path} does not exist; {writer} writes it')
    try:
        with open(path, 'rb') as file:
            found = _Reader(file).load()
    except Exception as error:  # whatever damaged content ends in
        raise UserError(f'{path} is no file of predictions ({one_line(error)}); {writer} writes it') from error
    if not isinstance(found, list) or not all(isinstance(sample, dict) for sample in found):
        raise UserError(f'{path} holds no list of predictions; {writer} writes it')
    return found
