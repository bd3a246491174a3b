"""Checks before a training starts, and words for what can go wrong in it.

They are cheap, leave the random state and with it the results as they are, and refuse only
what would fail or train on nothing: where a check itself does not work for a model, it says nothing.
"""

import copy
import functools
import json
import logging
import random
import re
import warnings
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from .errors import UserError
from .inference import count_classes, innermost
from .optim import backbone_of

MOST_LOOKED_AT = 1000  # items of a data set whose labels are compared with the heads
CHECK = '<check>'  # in messages, stands for the command that checks the data

# Channels: what the backbone hands on, and what follows takes


def check_channels(model: nn.Module) -> None:
    """Make sure that necks and heads take the maps that they get.

    A copy of the model that has shapes but no data (torch's meta device) is run on a made-up
    image. A part is at fault if it cannot be run and its ``in_channels`` are not those of its input.

    Args:
        model: A model of any toolbox, maybe wrapped for several processes.

    Raises:
        UserError: It names the setting, what it is, and what it has to be.
    """
    model = model.module if is_model_wrapper(model) else model
    try:
        holder = backbone_of(model)[0].rpartition('.')[0]
    except UserError:
        return
    model = model.get_submodule(holder)
    if not hasattr(model, 'extract_feat'):
        return
    with _random_state_kept(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        try:
            _try_model(_without_data(model).eval())
        except UserError as error:
            if not holder:
                raise
            raise UserError(str(error).replace('model.', 'model.detector.')) from None
        except Exception:  # a model that cannot be copied, or is put together in a way of its own
            return


def _try_model(model: nn.Module) -> None:
    maps, others = (_run_extractor(model, size) for size in ((256, 256), (288, 224)))
    # Necks may also flatten maps: then the number of channels says something about the size of the images.
    if not maps or not others or [x.shape[1] for x in maps] != [x.shape[1] for x in others]:
        return
    giver = _described(model, 'neck' if _has(model, 'neck') else 'backbone')
    for name, head in _heads_on_maps(model):
        _try_part(name, head, maps, giver)
    _check_regions(model, maps, giver)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def _without_data(model: nn.Module) -> nn.Module:
    memo = {id(buffer): torch.empty_like(buffer, device='meta') for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device='meta'), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _has(model: nn.Module, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)


def _described(model: nn.Module, name: str) -> str:
    return f'the {name} {type(getattr(model, name)).__name__}'


def _run_extractor(model: nn.Module, size: Tuple[int, int]) -> Optional[List[Tensor]]:
    """The maps that backbone and neck make of an image; None if that cannot be told.

    Raises:
        UserError: If the neck does not take what the backbone hands on.
    """
    given: Dict[str, Sequence[Tensor]] = {}
    if _has(model, 'neck'):
        model.neck.register_forward_pre_hook(lambda module, inputs: given.update(neck=inputs[0]))
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    try:
        return _as_maps(model.extract_feat(torch.empty(2, first.in_channels, *size, device='meta')))
    except Exception:  # a part that the meta device does not know, or a mismatch
        maps = _as_maps(given.get('neck'))
        if maps:
            _try_part('neck', model.neck, maps, _described(model, 'backbone'))
    return None


def _as_maps(output: object) -> Optional[List[Tensor]]:
    output = [output] if isinstance(output, Tensor) else output
    if isinstance(output, (list, tuple)) and output and all(isinstance(x, Tensor) and x.ndim > 1 for x in output):
        return list(output)
    return None


def _heads_on_maps(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Heads that are called with all maps, and their names."""
    for name in ('head', 'decode_head', 'auxiliary_head', 'rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            # Of a cascade of segmentation heads the first alone is.
            heads = list(head)[:1] if name == 'decode_head' else head
            yield from ((f'{name}[{i}]', part) for i, part in enumerate(heads))
        elif isinstance(head, nn.Module):
            yield name, head


def _try_part(name: str, part: nn.Module, maps: Sequence[Tensor], giver: str) -> None:
    """Run a neck or head on maps; if it fails and its settings do not fit them, say so."""
    mismatches = []

    def compare(layer: nn.Module, inputs: tuple) -> None:
        if inputs and isinstance(inputs[0], Tensor) and _channels_wanted(layer) not in (None, _channels(layer, inputs)):
            mismatches.append(layer)
            raise RuntimeError  # the meta device does not always do so

    for layer in part.modules():
        layer.register_forward_pre_hook(compare)
    try:
        part(tuple(maps))
    except Exception as error:
        stated = _stated_channels(part)
        if stated is None:
            return
        got = [x.shape[1] for x in maps]
        fitting, counts_differ = _fitting_channels(part, stated, got)
        if stated == fitting or not (mismatches or (counts_differ and isinstance(error, (AssertionError, IndexError)))):
            return
        raise UserError(_channel_message(name, part, stated, fitting, got, giver)) from None


def _channels_wanted(layer: nn.Module) -> Optional[int]:
    if not type(layer).__module__.startswith(('torch.nn', 'mmcv.cnn')):  # others may take what they get
        return None
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return None


def _channels(layer: nn.Module, inputs: tuple) -> int:
    return inputs[0].shape[-1] if isinstance(layer, nn.Linear) else inputs[0].shape[1]


def _stated_channels(part: nn.Module) -> Union[int, List[int], None]:
    """A part's ``in_channels``; of a sequence of parts, the first one's."""
    while isinstance(part, nn.Sequential) and len(part):
        part = part[0]
    stated = getattr(part, 'in_channels', None)
    return list(stated) if isinstance(stated, (list, tuple)) else stated if isinstance(stated, int) else None


def _fitting_channels(
    part: nn.Module, stated: Union[int, List[int]], got: List[int]
) -> Tuple[Union[int, List[int], None], bool]:
    """What ``in_channels`` would have to be, None if that is open; and whether there are too few or many maps."""
    index = getattr(part, 'in_index', None)
    indices = index if isinstance(index, (list, tuple)) else [index]
    if index is not None and all(isinstance(i, int) for i in indices):
        if not all(-len(got) <= i < len(got) for i in indices):
            return None, True
        picked = [got[i] for i in indices]
        if isinstance(index, int):
            return picked[0], False
        return (sum(picked), False) if isinstance(stated, int) else (picked, len(stated) != len(picked))
    if isinstance(stated, list):
        return got, len(stated) != len(got)
    if stated in got or stated == sum(got):
        return stated, False
    return (got[0] if len(set(got)) == 1 else None), False


def _channel_message(
    name: str,
    part: nn.Module,
    stated: Union[int, List[int]],
    fitting: Union[int, List[int], None],
    got: List[int],
    giver: str,
) -> str:
    key = f'model.{name}.in_channels'
    maps = f'{len(got)} maps of {got}' if len(got) > 1 else got[0]
    where = ' (its feature_channels)' if 'ScopeViT' in giver else ''
    if fitting is not None:
        remedy = f'set {key}={fitting}'
    elif getattr(part, 'in_index', None) is not None:
        remedy = f'set model.{name}.in_index, now {part.in_index}, to maps that there are (0 is the first)'
    else:
        remedy = 'set it to the channels of the map that it takes'
    return f'{key} is {stated}, but {giver} hands on {maps} channels{where}: {remedy}'


def _check_regions(model: nn.Module, maps: Sequence[Tensor], giver: str) -> None:
    """Second stages of detectors: an extractor cuts regions out of the maps, for heads on boxes and masks."""
    regions = getattr(model, 'roi_head', None)
    if not isinstance(regions, nn.Module) or getattr(regions, 'with_shared_head', True):
        return
    for kind in ('bbox', 'mask'):
        extractors, heads = (_as_list(getattr(regions, f'{kind}_{part}', None)) for part in ('roi_extractor', 'head'))
        for i, (extractor, head) in enumerate(zip(extractors, heads)):
            many = f'[{i}]' if len(heads) > 1 else ''
            channels = getattr(extractor, 'out_channels', None)
            if type(extractor).__name__ != 'SingleRoIExtractor' or channels is None:
                return
            used = {x.shape[1] for x in maps[: extractor.num_inputs]}
            if extractor.num_inputs > 1 and used != {channels}:
                raise UserError(
                    f'model.roi_head.{kind}_roi_extractor{many}.out_channels is {channels}, but {giver} hands on maps '
                    f'of {sorted(used)} channels: set it to those'
                )
            size = extractor.roi_layers[0].output_size
            region = torch.empty(2, channels, *size, device='meta')
            _try_part(f'roi_head.{kind}_head{many}', _OnOneMap(head), [region], f'its {kind}_roi_extractor')


class _OnOneMap(nn.Module):
    """A head that takes a tensor, as one that takes a tuple of it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.in_channels = getattr(head, 'in_channels', None)

    def forward(self, maps: Sequence[Tensor]) -> object:
        return self.head(maps[0])


def _as_list(part: Optional[nn.Module]) -> List[nn.Module]:
    return [] if part is None else list(part) if isinstance(part, nn.ModuleList) else [part]


# Data: that there are some, and that their labels fit the model


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


def classes_of(dataset: object) -> Optional[Sequence[str]]:
    """Names of the classes that a data set's objects or images have."""
    metainfo = getattr(dataset, 'metainfo', {})
    # Of panoptic data, detectors' heads tell the things apart; 'classes' are stuff as well.
    return metainfo.get('thing_classes', metainfo.get('classes'))


def joints_of(dataset: BaseDataset) -> Optional[int]:
    """How many joints mmpose's model learns from a data set, whatever that itself has."""
    for transform in getattr(dataset.pipeline, 'transforms', []):
        if type(transform).__name__ == 'KeypointConverter':
            return transform.num_keypoints
    return dataset.metainfo.get('num_keypoints')


def joint_channels(head: Optional[nn.Module], joints: int) -> Optional[Tuple[int, int]]:
    """The ``out_channels`` of a pose model's head, and what they have to be; None if it has none."""
    channels = getattr(head, 'out_channels', None)
    if not isinstance(channels, int):
        return None
    # A heatmap and the two offsets of each joint.
    combined = getattr(getattr(head, 'decoder', None), 'heatmap_type', None) == 'combined'
    return channels, joints * (3 if combined else 1)


def class_heads(model: nn.Module) -> Dict[str, int]:
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


def _name_bad_annotations(scope: Optional[str]) -> None:
    """Let the toolboxes' loading of annotations name the image or label map that it fails for."""
    if scope == 'mmdet':
        from mmdet.datasets.transforms import LoadAnnotations

        _explain(LoadAnnotations, KeyError, _missing_mask)
    elif scope == 'mmseg':
        from mmseg.datasets.transforms import LoadAnnotations

        _explain(LoadAnnotations, Exception, _bad_label_map)


def _explain(kind: type, errors: type, message: Callable[[dict, Exception], Optional[str]]) -> None:
    transform = kind.transform
    if hasattr(transform, '__wrapped__'):
        return

    @functools.wraps(transform)
    def explained(self: object, results: dict) -> Optional[dict]:
        try:
            return transform(self, results)
        except errors as error:
            reason = message(results, error)
            if reason is None:
                raise
            raise UserError(reason) from error

    kind.transform = explained


def _missing_mask(results: dict, error: Exception) -> Optional[str]:
    if str(error) != "'mask'":
        return None
    return (
        f'an object in image {results.get("img_path")} has no mask (its segmentation is empty), but the model learns '
        'masks: draw it or remove the object, or train a model of boxes alone'
    )


def _bad_label_map(results: dict, error: Exception) -> Optional[str]:
    path = results.get('seg_map_path')
    if isinstance(error, FileNotFoundError):
        return f'label map {path} does not exist; check the data set'
    return f'label map {path} cannot be read ({type(error).__name__}: {(str(error).splitlines() or [""])[0]})'


# Failures in training


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


def _explanation(runner: Runner, message: str) -> Optional[str]:
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


def _unknown_predictions(runner: Runner, model: nn.Module) -> Optional[str]:
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


def _unequal_joints(runner: Runner, model: nn.Module) -> Optional[str]:
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
