"""Checks of the data before a training starts: that there are some, and that their labels fit the model.

They are cheap, leave the random state and with it the results as they are, and refuse only
what would fail or train on nothing: where a check itself does not work for a model, it says nothing.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

from ..apis.model import count_classes
from ..utils.config import innermost
from ..utils.errors import UserError

MOST_LOOKED_AT = 1000  # items of a data set whose labels are compared with the heads
CHECK = '<check>'  # in messages, stands for the command that checks the data


def check_data(runner: Runner, config: str, splits: Sequence[str] = ('train', 'val')) -> None:
    """Load the data as the run will, and compare those to learn with the model's heads.

    What is loaded here is used by ``runner.train()`` or ``runner.test()``.

    Args:
        config: Name of the config, for messages.

    Raises:
        UserError: If a file or folder is missing or is no annotation file, no data are left, or
            labels go beyond the classes of a head.
    """
    if not isinstance(runner, Runner):  # another kind loads its data in another order
        return
    _name_bad_annotations(runner.cfg.get('default_scope'))
    advice = _advice(config)
    for split in splits:
        with _loading_explained(runner.cfg, split, advice):
            loop = getattr(runner, f'{split}_loop')
        loader = getattr(loop, 'dataloader', None)
        if loader is None:
            continue
        for dataset in _innermost(loader.dataset):
            _check_categories(split, dataset)
            if not len(dataset):
                raise UserError(_why_empty(runner.cfg, split, advice))
            if split == 'train':
                _check_objects(dataset, advice)
        if split == 'train':
            _check_labels(runner.model, loader.dataset)


def build_dataset(cfg: Config, split: str, config: str) -> BaseDataset:
    """The data set of a split, to look at.

    Args:
        config: Name of the config, for messages.

    Raises:
        UserError: If it cannot be loaded or nothing is in it.
    """
    _name_bad_annotations(cfg.get('default_scope'))
    with _loading_explained(cfg, split, _advice(config)):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    if not len(dataset):
        raise UserError(_why_empty(cfg, split, _advice(config)))
    return dataset


def _advice(config: str) -> str:
    return f'python tools/data/check_dataset.py {config} tells what is wrong'


@contextmanager
def _loading_explained(cfg: Config, split: str, advice: str) -> Iterator[None]:
    """Turn what data sets raise over their files into messages."""
    try:
        yield
    except (OSError, AssertionError, KeyError, ValueError) as error:
        if 'need at least one array to concatenate' in str(error):  # how MMEngine finds that there is nothing
            raise UserError(_why_empty(cfg, split, advice)) from error
        missing = isinstance(error, FileNotFoundError) or 'not exist' in str(error)
        reason = str(error) if missing else f'{type(error).__name__}: {error}'
        raise UserError(f'the data for split {split} cannot be loaded: {reason}; {advice}') from error


def _innermost(dataset: object) -> Iterator[BaseDataset]:
    """The data sets within those that wrap or join them."""
    if isinstance(dataset, BaseDataset):
        yield dataset
    for inner in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or [])]:
        if inner is not None:
            yield from _innermost(inner)


def _why_empty(cfg: Config, split: str, advice: str) -> str:
    """Why nothing is left of a data set: maybe its categories have other names than the config's classes."""
    try:
        dataset = DATASETS.build({**innermost(cfg[f'{split}_dataloader'].dataset), 'lazy_init': True})
        classes = dataset.metainfo['classes']
        with open(dataset.ann_file) as file:
            names = [category['name'] for category in json.load(file)['categories']]
    except Exception:  # it has no such file
        names = classes = []
    if names and not set(names) & set(classes):
        return _no_category(dataset, classes, f' ({_first(names)})')
    return f'the data set for split {split} is empty, or all of it was filtered out; {advice}'


def _no_category(dataset: BaseDataset, classes: Sequence[str], names: str = '') -> str:
    return (
        f'none of the classes of the config ({_first(classes)}) is a category of {dataset.ann_file}{names}: set '
        'metainfo=dict(classes=(...)) of the data sets to the names of its categories, and num_classes to fit'
    )


def _check_categories(split: str, dataset: BaseDataset) -> None:
    """mmdet finds categories by name and silently drops all objects of others."""
    found, classes = getattr(dataset, 'cat_ids', None), dataset.metainfo.get('classes')
    if found is None or not classes:
        return
    if isinstance(classes, str):
        _warn(f'classes of the data for split {split} is a text: write classes=({classes!r},), with a comma')
    elif not found:
        raise UserError(_no_category(dataset, classes))
    elif len(found) < len(classes):
        _warn(
            f'{dataset.ann_file} has only {len(found)} of the {len(classes)} classes of the config '
            f'({_first(classes)}): if that is not meant, compare metainfo.classes with the names of its categories'
        )


def _check_objects(dataset: BaseDataset, advice: str) -> None:
    """mmdet silently drops objects of no area, and those thinner than a pixel."""
    if not hasattr(dataset, 'cat_ids'):
        return
    if not any(dataset.get_data_info(i).get('instances') for i in range(len(dataset))):
        raise UserError(
            f'no object of {dataset.ann_file} can be learnt: mmdet drops those with an area of 0 or thinner than a '
            f'pixel (are boxes given in fractions of the image, not in pixels?); {advice}'
        )


def _check_labels(model: nn.Module, dataset: BaseDataset) -> None:
    """Refuse labels beyond a head's classes: they are errors or, in mmdet, would count as background."""
    heads = class_heads(model.module if is_model_wrapper(model) else model)
    classes = classes_of(dataset)
    try:
        highest = max(map(_highest_label, _innermost(dataset)), default=-1)
    except Exception:  # a data set of another kind of items
        return
    for name, count in heads.items():
        if highest >= count:
            names = f' ({_first(classes)})' if isinstance(classes, (list, tuple)) else ''
            raise UserError(
                f'the training data have label {highest}, but model.{name}.num_classes is {count}: set it to the '
                f'number of classes of the data{names}, counting from 0'
            )
        if isinstance(classes, (list, tuple)) and len(classes) != count:
            _warn(f'model.{name}.num_classes is {count}, but the data have {len(classes)} classes ({_first(classes)})')


def classes_of(dataset: object) -> Sequence[str] | None:
    """Names of the classes that a data set's objects or images have."""
    metainfo = getattr(dataset, 'metainfo', {})
    # Of panoptic data, detectors' heads tell the things apart; 'classes' are stuff as well.
    return metainfo.get('thing_classes', metainfo.get('classes'))


def joints_of(dataset: BaseDataset) -> int | None:
    """How many joints mmpose's model learns from a data set, whatever that itself has."""
    for transform in getattr(dataset.pipeline, 'transforms', []):
        if type(transform).__name__ == 'KeypointConverter':
            return transform.num_keypoints
    return dataset.metainfo.get('num_keypoints')


def joint_channels(head: nn.Module | None, joints: int) -> tuple[int, int] | None:
    """The ``out_channels`` of a pose model's head, and what they have to be; None if it has none."""
    channels = getattr(head, 'out_channels', None)
    if not isinstance(channels, int):
        return None
    # A heatmap and the two offsets of each joint.
    combined = getattr(getattr(head, 'decoder', None), 'heatmap_type', None) == 'combined'
    return channels, joints * (3 if combined else 1)


def class_heads(model: nn.Module) -> dict[str, int]:
    """The heads that tell the data's classes apart, by name, with the number of classes of each."""
    modules = dict(model.named_modules())
    return {
        name: count
        for name, count in count_classes(model).items()
        # Others tell stuff from things, edges from the rest, or nothing apart.
        if not any(word in name for word in ('semantic', 'panoptic', 'fusion'))
        and not ('auxiliary' in name and count <= 2)
        and not getattr(modules[name], 'class_agnostic', False)
    }


def _highest_label(dataset: BaseDataset) -> int:
    """The highest label of a sample of a data set's items, or -1; label maps are not read."""
    highest, count = -1, len(dataset)
    for i in sorted(set(np.linspace(0, count - 1, min(count, MOST_LOOKED_AT)).astype(int).tolist())):
        info = dataset.get_data_info(i)
        labels = [instance.get('bbox_label') for instance in info.get('instances') or []]
        labels.append(info.get('gt_label'))
        highest = max([highest, *(label for label in labels if isinstance(label, (int, np.integer)))])
    return int(highest)


def _first(names: Sequence[str], most: int = 3) -> str:
    return ', '.join(map(str, names[:most])) + (', ...' if len(names) > most else '')


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _name_bad_annotations(scope: str | None) -> None:
    """Let the toolboxes' loading of annotations name the image or label map that it fails for."""
    if scope == 'mmdet':
        from mmdet.datasets.transforms import LoadAnnotations

        _explain(LoadAnnotations, KeyError, _missing_mask)
    elif scope == 'mmseg':
        from mmseg.datasets.transforms import LoadAnnotations

        _explain(LoadAnnotations, Exception, _bad_label_map)


def _explain(kind: type, errors: type, message: Callable[[dict, Exception], str | None]) -> None:
    transform = kind.transform
    if hasattr(transform, '__wrapped__'):
        return

    @functools.wraps(transform)
    def explained(self: object, results: dict) -> dict | None:
        try:
            return transform(self, results)
        except errors as error:
            reason = message(results, error)
            if reason is None:
                raise
            raise UserError(reason) from error

    kind.transform = explained


def _missing_mask(results: dict, error: Exception) -> str | None:
    if str(error) != "'mask'":
        return None
    return (
        f'an object in image {results.get("img_path")} has no mask (its segmentation is empty), but the model learns '
        'masks: draw it or remove the object, or train a model of boxes alone'
    )


def _bad_label_map(results: dict, error: Exception) -> str | None:
    path = results.get('seg_map_path')
    if isinstance(error, FileNotFoundError):
        return f'label map {path} does not exist; check the data set'
    return f'label map {path} cannot be read ({type(error).__name__}: {(str(error).splitlines() or [""])[0]})'


# Failures in training
