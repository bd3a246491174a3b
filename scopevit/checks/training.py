"""What a training or test checks of its data: the cheap rules before it, all of them if it fails.

They leave the random state and with it the results as they are.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..utils.building import wrong_setting
from ..utils.errors import ExplainedError, UserError, chain, one_line, own_error
from ..utils.wrappers import unwrap
from .batch import check_batch
from .classes import (
    check_class_count,
    check_labels,
    check_names_are_listed,
    check_same_labels,
    check_softmax,
    classes_of,
    labels_of,
)
from .classification import check_hidden, check_same_folders, check_suffixes, class_folders, is_of_folders
from .coco import QUICK_RULES, check_categories, check_coco
from .findings import Finding, found_in_time, listed, refuse_errors
from .images import MOST_HEADERS, check_files, check_there, spread
from .loaders import check_batches, check_settings
from .loading import advice, check_objects, loading_explained, why_empty
from .part import Part, innermost_datasets, is_a
from .pose import QUICK_PERSON_RULES
from .rules import check_split, kind_of
from .segmentation import MOST_FORMS, check_folder, check_forms, check_map_sizes, check_one_class

READ_AT_START = 100e6  # bytes of an annotation file; that of COCO's training images has 470 million


def require_sound_data(runner: Runner, config: str, splits: Sequence[str] = ('train', 'val')) -> None:
    """Load the data as the run will, and refuse those that would fail or of which nothing would be learnt.

    What is loaded here is used by ``runner.train()`` or ``runner.test()``.

    Args:
        config: Name of the config, for messages.

    Raises:
        UserError: If a file or folder is missing or is no annotation file, no data are left, or
            labels go beyond the classes of a head.
    """
    if not isinstance(runner, Runner):  # another kind loads its data in another order
        return
    those: list[Part] = []
    loaders: dict[str, DataLoader] = {}
    refuse_errors(check_softmax(runner.model) if 'train' in splits else ())
    for split in splits:
        refuse_errors(check_settings(runner.cfg, split))
        with loading_explained(runner.cfg, split, config, runner.model):
            loop = getattr(runner, f'{split}_loop')
        loader = getattr(loop, 'dataloader', None)
        if loader is not None:
            loaders[split] = loader
            refuse_errors(check_loaded(runner.cfg, split, loader.dataset, runner.model), advice(config))
            those += loaded_parts(split, loader.dataset, runner.model)
    refuse_errors(check_quickly(those), advice(config))
    for split, loader in loaders.items():  # the last, for a mask of a billion pixels would end the process
        found = check_batches(runner.cfg, split, loader.dataset, loader.collate_fn, runner.model)
        refuse_errors(found, advice(config))


def check_loaded(cfg: Config, split: str, dataset: object, model: nn.Module) -> Iterator[Finding]:
    """The rules that take no time, for data that have been loaded."""
    for inner in innermost_datasets(dataset):
        if not len(inner):
            yield from why_empty(cfg, split)
            return
        part = Part(split, '', inner, model)
        hidden = list(check_hidden(part, class_folders(part))) if is_of_folders(part) else []
        if hidden:  # the numbers that follow would be wrong
            yield from hidden
            return
        if _has_other_categories(inner) and not _is_short(inner.ann_file):
            yield from check_coco(part, (check_categories,))
        if not hasattr(inner, 'cat_ids'):  # of others the annotation file is read
            yield from check_names_are_listed(split, classes_of(inner))
        if split == 'train' and getattr(inner, 'cat_ids', True):  # without categories there are other words for it
            yield from check_objects(split, inner)
    if split == 'train':
        if all(getattr(inner, 'cat_ids', True) for inner in innermost_datasets(dataset)):  # else as above
            yield from check_class_count(split, classes_of(dataset), model)
        yield from check_labels(split, labels_of(dataset), classes_of(dataset), model)


def loaded_parts(split: str, dataset: object, model: nn.Module | None) -> list[Part]:
    """The data sets that are joined in a loaded one, as the rules look at them."""
    found = list(innermost_datasets(dataset))
    names = [f'{split}[{i}]' for i in range(len(found))] if len(found) > 1 else [split]
    return [Part(name, f'{split}_dataloader.dataset', inner, model) for name, inner in zip(names, found)]


def check_chosen(split: str, dataset: object, chosen: Sequence[int]) -> Iterator[Finding]:
    """What becomes of the images of some items when they are read; of data sets that are joined, of as many of each."""
    for part in loaded_parts(split, dataset, None):
        numbers = chosen if part.dataset is dataset else spread(range(len(part.dataset)), len(chosen))
        yield from check_files(part, [part.dataset.get_data_info(i) for i in numbers])


def check_quickly(those: Sequence[Part]) -> Iterator[Finding]:
    """The rules that read annotation files of no great length, the headers of some images, and names of files."""
    for part in those:
        dataset, kind = part.dataset, kind_of(part.dataset)
        items = [dataset.get_data_info(i) for i in spread(range(len(dataset)), MOST_FORMS)]
        yield from check_there(part, spread(items, MOST_HEADERS))
        if kind in ('people', 'objects'):
            if _is_short(dataset.ann_file):
                yield from check_coco(part, QUICK_PERSON_RULES if kind == 'people' else QUICK_RULES)
            continue
        yield from check_files(part, items)
        if kind == 'label maps':
            yield from check_folder(part)
            yield from check_forms(part, items)
            yield from check_map_sizes(part, items)
            yield from check_one_class(part, items)
        elif is_of_folders(part):
            yield from check_suffixes(part)
    yield from check_same_folders(those)
    yield from check_same_labels(those)


def _is_short(path: str) -> bool:
    """Whether reading an annotation file takes no more than seconds."""
    return os.path.isfile(path) and os.path.getsize(path) <= READ_AT_START


def _has_other_categories(dataset: BaseDataset) -> bool:
    """Whether mmdet did not find each class in an annotation file, which then has to be read to say why."""
    found, classes = getattr(dataset, 'cat_ids', None), dataset.metainfo.get('classes')
    is_coco = is_a(dataset, 'CocoDataset', 'load_data_list', 'parse_data_info')
    return is_coco and bool(classes) and (isinstance(classes, str) or len(found or []) != len(classes))


@contextmanager
def failures_explained(runner: Runner, config: str) -> Iterator[None]:
    """After a failure within a training or test, add what the rules find in the data in use to its traceback.

    Args:
        config: Name of the config, for messages.

    Raises:
        ExplainedError: With the findings, if there are any.
        UserError: Of a setting over which something could not be built, with its key, or of a data loader's process
            that is gone.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lost = lost_worker(error)
        if lost is not None:
            raise UserError(lost) from error
        setting = None if own_error(error) else wrong_setting(error, runner.cfg, only_building=True)
        if setting is not None:
            raise UserError(setting) from error
        found = found_in_time(check_after_failure(runner))
        if not found:
            raise
        raise ExplainedError(
            f'the run failed, see above ({one_line(error, 100)}); found in its data and settings: '
            f'{listed(found)}\n{advice(config)}'
        ) from error


def lost_worker(error: Exception) -> str | None:
    """What is known if a process of a data loader has ended without an error of its own; torch has no type for that."""
    said = next((str(link) for link in chain(error) if str(link).startswith('DataLoader worker')), None)
    if said is None:
        return None
    shared = ''
    with suppress(OSError):  # where the system has none
        shared = f'; /dev/shm, through which batches come, has {shutil.disk_usage("/dev/shm").free >> 20} MiB free now'
    return (
        f'a process of the data loader was ended from outside or crashed ({" ".join(said.split())[:100]}){shared}; '
        '*_dataloader.num_workers=0 loads without such processes'
    )


def check_after_failure(runner: Runner) -> Iterator[Finding]:
    """All rules for the data in use, with a sample of files."""
    model = unwrap(runner.model)
    for split in ('train', 'val', 'test'):
        loop = getattr(runner, f'_{split}_loop', None)
        dataset = getattr(loop.dataloader, 'dataset', None) if isinstance(loop, BaseLoop) else None
        if dataset is not None:  # another one is not in use; to ask for it would build it
            yield from check_split(runner.cfg, split, model, sample=100)
            yield from check_loaded(runner.cfg, split, dataset, model)
    yield from check_batch(runner, model)
