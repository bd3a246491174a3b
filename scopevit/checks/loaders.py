"""Rules for data loaders: settings that exclude each other, epochs without a batch, batches of several sizes."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size
from mmengine.registry import FUNCTIONS, DefaultScope
from torch import nn

from ..apis.model import image_channels
from ..utils.config import type_name
from ..utils.errors import one_line
from ..utils.image import read_header
from ..utils.randomness import random_state_kept
from .channels import without_data
from .findings import Finding, first, log_unchecked
from .images import MOST_HEADERS, spread

MOST_LOADED = 4  # images of different sizes that are put into a batch


def check_settings(cfg: Config, split: str) -> Iterator[Finding]:
    """What needs worker processes is not asked for without them."""
    key = f'{split}_dataloader'
    settings = cfg.get(key) or {}
    if settings.get('num_workers', 0) != 0:
        return
    for name, without in (('persistent_workers', False), ('prefetch_factor', None)):
        if settings.get(name):
            text = (
                f'{key}.{name}={settings[name]} needs workers: set {key}.num_workers to 1 or more, or it to {without}'
            )
            yield Finding('error', key, text)


def check_batches(
    cfg: Config, split: str, dataset: BaseDataset, collate: Callable[[list], Any], model: nn.Module | None
) -> Iterator[Finding]:
    """The rules for batches, for which a few items are loaded."""
    yield from check_channels_of_images(split, dataset, model)
    if split == 'train':
        yield from check_count(cfg, split, len(dataset))
    yield from check_sizes(cfg, split, dataset, collate, model)


def check_count(cfg: Config, split: str, count: int) -> Iterator[Finding]:
    """There is a batch in an epoch: with fewer images than one has, drop_last leaves none."""
    key = f'{split}_dataloader'
    settings, sampler = cfg[key], cfg[key].get('sampler') or {}
    drops = settings.get('drop_last') or (settings.get('batch_sampler') or {}).get('drop_last')
    size, is_usual = settings.get('batch_size'), type_name(sampler) in ('', 'DefaultSampler')  # once over all images
    if drops and is_usual and isinstance(size, int) and math.ceil(count / get_world_size()) < size:
        text = (
            f'{count} images are fewer than a batch has ({size} on each device), and drop_last leaves out what fills '
            f'none: set {key}.batch_size lower or {key}.drop_last=False'
        )
        yield Finding('error', split, text)


def collate_of(cfg: Config, split: str) -> Callable[[list], Any]:
    """What makes a batch of a split's items, as MMEngine builds it."""
    settings = dict((cfg[f'{split}_dataloader'].get('collate_fn')) or dict(type='pseudo_collate'))
    kind = settings.pop('type')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        return functools.partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **settings)


def check_sizes(
    cfg: Config, split: str, dataset: BaseDataset, collate: Callable[[list], Any], model: nn.Module | None
) -> Iterator[Finding]:
    """Images of several sizes fit into one batch of a validation, where the model takes batches. It is tried."""
    batch = cfg[f'{split}_dataloader'].get('batch_size')
    preprocessor = getattr(getattr(model, 'module', model), 'data_preprocessor', None)
    if split == 'train' or preprocessor is None or not isinstance(batch, int) or batch < 2:
        return
    chosen = _of_different_sizes(dataset)
    if len(chosen) < 2:
        return
    with random_state_kept():
        try:
            alike, others = ([dataset[i] for i in numbers] for numbers in ([chosen[0]] * 2, chosen))
            preprocessor(collate(alike), False)  # which may write into the items
        except Exception as error:  # which has another reason, and is told when it is loaded
            log_unchecked(f'sizes of {split}', error)
            return
        try:
            preprocessor(collate(others), False)
        except Exception as error:
            names = [dataset.get_data_info(i)['img_path'] for i in chosen]
            key = f'{split}_dataloader.batch_size'
            text = (
                f'{key} is {batch}, but images of several sizes ({first(names, 2)}) do not fit into one batch '
                f'({one_line(error, 100)}): set {key}=1, or bring them to one size in the pipeline'
            )
            yield Finding('error', split, text)


def _of_different_sizes(dataset: BaseDataset) -> list[int]:
    """The numbers of a few items whose images have different sizes."""
    found: dict[tuple[int, int], int] = {}
    for i in spread(range(len(dataset)), MOST_HEADERS):
        path = dataset.get_data_info(i).get('img_path') if hasattr(dataset, 'get_data_info') else None
        header = read_header(path) if isinstance(path, str) else None
        if header is not None:
            found.setdefault(header.upright, i)
    return list(found.values())[:MOST_LOADED]


def check_channels_of_images(split: str, dataset: BaseDataset, model: nn.Module | None) -> Iterator[Finding]:
    """Images have the channels that the model takes, by the first of a data set."""
    model = getattr(model, 'module', model)
    backbone = getattr(model, 'backbone', None)
    if model is None or backbone is None:
        return
    with random_state_kept():
        try:
            inputs = dataset[0]['inputs']
            inputs = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
            found, wanted = inputs.shape[-3], image_channels(model)
        except Exception as error:  # a data set of another form, or a fault that is told when it is loaded
            log_unchecked(f'channels of {split}', error)
            return
    if found != wanted and _takes(backbone, wanted) and not _takes(backbone, found):
        text = (
            f'images have {found} channels, but the model takes {wanted}: set model.backbone.in_channels={found} (and '
            'mean and std of the data_preprocessor to as many numbers), or color_type of LoadImageFromFile'
        )
        yield Finding('error', split, text)


def _takes(backbone: nn.Module, channels: int) -> bool:
    """Whether a backbone runs with images of this many channels; ``in_channels`` is not always reliable."""
    try:
        with random_state_kept(), torch.no_grad():
            without_data(backbone).eval()(torch.empty(2, channels, 224, 224, device='meta'))
    except Exception as error:  # that is what was asked for
        log_unchecked(f'{channels} channels', error)
        return False
    return True
