"""What the data did, if a training failed for them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..utils.errors import UserError
from .data import CHECK, _innermost, class_heads, joint_channels, joints_of


@contextmanager
def failures_explained(runner: Runner, config: str) -> Iterator[None]:
    """Turn errors that data cause deep in a training into messages that say what to mend.

    Args:
        config: Name of the config, for messages.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _explanation(runner, str(error))
        if reason is None:
            raise
        raise UserError(reason.replace(CHECK, f'python tools/data/check_dataset.py {config}')) from error


def _explanation(runner: Runner, message: str) -> str | None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    counts = ', '.join(f'model.{name}.num_classes={count}' for name, count in class_heads(model).items())
    label = re.search(r'Target (-?\d+) is out of bounds', message)
    if label:
        return (
            f'the training data have label {label.group(1)}, which is not among the classes of the model ({counts}): '
            f'set num_classes, or correct the labels; {CHECK} says which file has it'
        )
    if 'device-side assert' in message:
        return f'the GPU refused a number, most likely a label beyond {counts}; {CHECK} says which file has it'
    if 'Expected more than 1 value per channel' in message:
        return (
            'batch norm over maps of one pixel needs two images at least: set train_dataloader.batch_size to 2 or '
            'more, and train_dataloader.drop_last=True so that no single image is left over'
        )
    if 'BFloat16' in message:
        return (
            f'a part of this model cannot compute in bfloat16, which mixed precision is here ({message}): leave '
            '--amp out, or train in float16 on a GPU with --cfg-options gpu.amp_dtype=float16'
        )
    if 'list index out of range' in message:
        return _unknown_predictions(runner, model)
    if re.search('size of tensor|shape|broadcast|out of bounds', message):
        return _unequal_joints(runner, model)
    return None


def _datasets_in_use(runner: Runner, *splits: str) -> Iterator[BaseDataset]:
    """The data sets of those loops of a run that have been built; to ask for others would build them."""
    for split in splits:
        loop = getattr(runner, f'_{split}_loop', None)
        loader = loop.dataloader if isinstance(loop, BaseLoop) else None
        yield from _innermost(getattr(loader, 'dataset', None))


def _unknown_predictions(runner: Runner, model: nn.Module) -> str | None:
    """What to mend if mmdet's evaluation meets predictions of classes that the validation file does not have."""
    for dataset in _datasets_in_use(runner, 'val', 'test'):
        known = len(getattr(dataset, 'cat_ids', None) or [])
        for name, count in class_heads(model).items():
            if 0 < known < count:
                return (
                    f'{dataset.ann_file} has {known} of the classes of the config, but model.{name}.num_classes is '
                    f'{count}, and the model predicted others: set it to the number of classes, and list all of them '
                    'among the categories of the file, even if it has none of their objects'
                )
    return None


def _unequal_joints(runner: Runner, model: nn.Module) -> str | None:
    """What to mend if people's joints in the data, their description and the model's head differ in number."""
    for dataset in _datasets_in_use(runner, 'train'):
        described = dataset.metainfo.get('num_keypoints')
        there = np.shape(dataset.get_data_info(0).get('keypoints'))
        if described is None or len(there) != 3:
            continue
        if there[1] != described:
            return (
                f'{dataset.ann_file} has {there[1]} joints for each person, but metainfo of the data set describes '
                f'{described}: make them agree; {CHECK} tells more'
            )
        learnt = joints_of(dataset)
        channels, wanted = joint_channels(getattr(model, 'head', None), learnt) or (None, None)
        if channels != wanted:
            return (
                f'the training data have {learnt} joints, but model.head.out_channels is {channels}: set it to '
                f'{wanted}, or metainfo of the data sets to the joints of the model'
            )
    return None
