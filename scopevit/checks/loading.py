"""Loading data as a training does: what is left of them, and what cannot be read."""

import functools
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import cv2
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch import nn

from ..utils.building import wrong_setting
from ..utils.errors import UserError, one_line, raise_own
from ..utils.shipped import tool_command
from .classes import check_class_count, check_labels, classes_of, labels_of
from .findings import Finding, first, found_in_time, listed
from .loaders import check_channels_of_images, check_count_of, check_sizes, collate_of
from .part import Part, build
from .paths import is_elsewhere
from .rules import cannot_be_built, check_split


def build_dataset(cfg: Config, split: str, config: str) -> BaseDataset:
    """The data set of a split, to look at.

    Args:
        config: Name of the config, for messages.

    Raises:
        UserError: If it cannot be loaded or nothing is in it.
    """
    name_unreadable_files(cfg.get('default_scope'))
    with loading_explained(cfg, split, config):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    if not len(dataset):
        raise UserError(f'{listed(list(why_empty(cfg, split)))}; {advice(config)}')
    return dataset


def advice(config: str) -> str:
    """What to do about data, whatever is wrong with them; ``config`` is the name of their config."""
    return f'{tool_command("data/check_dataset.py", "check")} {config} tells what is wrong'


@contextmanager
def loading_explained(cfg: Config, split: str, config: str, model: nn.Module | None = None) -> Iterator[None]:
    """Turn what goes wrong while data are loaded into what the rules find in them, or the wrong setting's key."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise_own(error)
        setting = wrong_setting(error, cfg, only_registry=True)
        if setting is not None:
            raise UserError(setting) from error
        found = [f for f in found_in_time(check_split(cfg, split, model, sample=20)) if f.severity == 'error']
        found = found or (list(why_empty(cfg, split)) if _is_empty(cfg, split) else [])
        if not found and not isinstance(error, OSError):
            setting = wrong_setting(error, cfg)
            if setting is None:
                raise
            raise UserError(setting) from error
        reason = listed(found) if found else one_line(error)
        raise UserError(f'the data for split {split} cannot be loaded: {reason}; {advice(config)}') from error


def _is_empty(cfg: Config, split: str) -> bool:
    """Whether nothing is left of a split's data, over which MMEngine's loading fails."""
    try:
        dataset = build(cfg[f'{split}_dataloader'].dataset, cfg.get('default_scope'), serialize_data=False)
        return not len(dataset)
    except Exception:  # asked after a failure, which is told whatever comes of this
        return False


def why_empty(cfg: Config, split: str) -> Iterator[Finding]:
    """Why nothing is left of a split's data, as far as the rules tell."""
    found = [finding for finding in check_split(cfg, split, None, sample=1) if finding.severity == 'error']
    text = f'the data set for split {split} is empty, or all of it was filtered out'
    yield from found or [Finding('error', split, text)]


def check_objects(where: str, dataset: BaseDataset) -> Iterator[Finding]:
    """Something of a loaded data set can be learnt: mmdet drops objects of no area, and those thinner than a pixel."""
    if hasattr(dataset, 'cat_ids') and not any(dataset.get_data_info(i).get('instances') for i in range(len(dataset))):
        text = (
            f'no object of {dataset.ann_file} can be learnt: mmdet drops those with an area of 0 or thinner than a '
            'pixel (are boxes given in fractions of the image, not in pixels?)'
        )
        yield Finding('error', where, text)


def check_loading(part: Part, cfg: Config) -> Iterator[Finding]:
    """A split's data set loads as in training, and so do its first, its last and a sample of items.

    Args:
        part: The split; its data set is built here, in full.
    """
    where = part.where
    yield Finding('info', where, 'loading as in training')
    settings = cfg[f'{where}_dataloader'].dataset
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools says how long it reads
            dataset = build(settings, cfg.get('default_scope') or 'mmengine')
        count = len(dataset)
    except Exception as error:  # the toolboxes check their data in many ways
        raise_own(error)
        yield Finding('error', where, cannot_be_built(settings, error, cfg))
        return
    if not count:
        yield Finding('error', where, f'the data set for split {where} is empty, or all of it was filtered out')
        return
    yield Finding('info', where, f'{count:,} items')
    yield from check_objects(where, dataset)
    yield from check_class_count(where, classes_of(dataset), part.model)
    yield from check_labels(where, labels_of(dataset), classes_of(dataset), part.model)
    yield from check_channels_of_images(where, dataset, part.model)
    if where == 'train':
        yield from check_count_of(cfg, where, count)
    yield from check_sizes(cfg, where, dataset, collate_of(cfg, where), part.model)
    failures: dict[str, list[str]] = {}
    for i in sorted({0, count - 1, *part.choose(range(count))}):
        try:
            dataset[i]
        except Exception as error:
            raise_own(error)
            info = dataset.get_data_info(i) if hasattr(dataset, 'get_data_info') else {}
            failures.setdefault(one_line(error), []).append(str(info.get('img_path', f'item {i}')))
    for reason, names in failures.items():
        yield Finding('error', where, f'{len(names)} items cannot be loaded ({first(names)}): {reason}')


def name_unreadable_files(scope: str | None) -> None:
    """Let a toolbox's loading name the image or label map that it cannot read.

    mmcv and mmseg pass on what OpenCV or Pillow say, which for an empty file is not even its name.
    """
    from mmcv.transforms import LoadImageFromFile

    _explain(LoadImageFromFile, 'img_path', (OSError, AssertionError, ValueError, cv2.error), _bad_image)
    if scope == 'mmseg':
        from mmseg.datasets.transforms import LoadAnnotations

        # What Pillow's decoders raise over damaged data.
        errors = (OSError, ValueError, SyntaxError, struct.error, zlib.error, cv2.error)
        _explain(LoadAnnotations, 'seg_map_path', errors, _bad_label_map)


class _Explained:
    """In a data set: lets a process name files that it cannot read to which the data set is sent, by pickling."""

    def __init__(self, scope: str | None) -> None:
        self.scope = scope
        name_unreadable_files(scope)

    def __reduce__(self) -> tuple:
        return _Explained, (self.scope,)


def name_files_elsewhere(dataset: BaseDataset, scope: str | None) -> None:
    """Let a loader's workers name files as :func:`name_unreadable_files` does, if they start from nothing ('spawn')."""
    dataset._files_explained = _Explained(scope)  # type: ignore[attr-defined]


def _explain(
    kind: Any, key: str, errors: tuple[type[Exception], ...], message: Callable[[dict, Exception], str]
) -> None:
    transform = kind.transform
    if hasattr(transform, '__wrapped__'):
        return

    @functools.wraps(transform)
    def explained(self: object, results: dict) -> dict | None:
        _check_path(results.get(key), _WHAT[key])
        try:
            found = transform(self, results)
        except errors as error:
            raise UserError(message(results, error)) from error
        labels = found.get('gt_seg_map') if key == 'seg_map_path' and found else None
        if labels is not None and labels.ndim != 2:
            raise UserError(
                f'label map {results.get(key)} has {labels.shape[-1]} channels, but must have one whose values are '
                'class numbers: convert the colours to class numbers'
            )
        return found

    kind.transform = explained


_WHAT = {'img_path': 'image', 'seg_map_path': 'label map'}


def _check_path(path: object, what: str) -> None:
    """Refuse what would be read for ever, or by a way that there is not; a missing file is told by its reading."""
    if not isinstance(path, str) or is_elsewhere(path):
        return
    try:
        is_odd = '://' in path or (os.path.exists(path) and not os.path.isfile(path))
    except ValueError:  # a null byte
        is_odd = True
    if is_odd:
        raise UserError(f'{what} {path!r} is no file; correct the name in the data set')


def _bad_image(results: dict, error: Exception) -> str:
    path = results.get('img_path')
    if isinstance(error, FileNotFoundError):
        return f'image {path} does not exist; {_remedy(path)}'
    return (
        f'image {path} cannot be decoded ({type(error).__name__}); repair or remove it and start again, a training '
        'with --resume'
    )


def _remedy(path: object) -> str:
    is_of_windows = '\\' in str(path) and os.path.exists(str(path).replace('\\', '/'))
    return 'write / in its name, not \\' if is_of_windows else 'check the data set'


def _bad_label_map(results: dict, error: Exception) -> str:
    path = results.get('seg_map_path')
    if isinstance(error, FileNotFoundError):
        return f'label map {path} does not exist; {_remedy(path)}'
    return f'label map {path} cannot be read ({type(error).__name__}: {(str(error).splitlines() or [""])[0]})'
