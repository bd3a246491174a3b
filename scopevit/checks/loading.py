"""Loading data as a training does: what is left of them, and what cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from ..utils.building import wrong_setting
from ..utils.errors import UserError, one_line, raise_own
from ..utils.shipped import tool_command
from ..utils.silence import silence
from .classes import check_class_count, check_labels, classes_of, labels_of
from .findings import Finding, first, found_in_time, listed, log_unchecked
from .loaders import check_batches, collate_of
from .part import Part, build
from .rules import cannot_be_built, check_split


def build_dataset(cfg: Config, split: str, config: str) -> BaseDataset:
    """The data set of a split, to look at; the config's toolbox becomes the default scope.

    Args:
        config: Name of the config, for messages.

    Raises:
        UserError: If the config has none, it cannot be loaded, or nothing is in it.
    """
    if cfg.get(f'{split}_dataloader') is None:
        raise UserError(f'config {config} has no {split}_dataloader')
    init_default_scope(cfg.get('default_scope'))
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
    except Exception as error:  # asked after a failure, which is told whatever comes of this
        log_unchecked(f'whether {split} is empty', error)
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
    yield part.info('loading as in training')
    settings = cfg[f'{where}_dataloader'].dataset
    try:
        with silence(prints=True):  # pycocotools says how long it reads
            dataset = build(settings, cfg.get('default_scope') or 'mmengine')
        count = len(dataset)
    except Exception as error:  # the toolboxes check their data in many ways
        raise_own(error)
        yield part.error(cannot_be_built(settings, error, cfg))
        return
    if not count:
        yield from why_empty(cfg, where)
        return
    yield part.info(f'{count:,} items')
    yield from check_objects(where, dataset)
    yield from check_class_count(where, classes_of(dataset), part.model)
    yield from check_labels(where, labels_of(dataset), classes_of(dataset), part.model)
    yield from check_batches(cfg, where, dataset, collate_of(cfg, where), part.model)
    failures: dict[str, list[str]] = {}
    for i in sorted({0, count - 1, *part.choose(range(count))}):
        try:
            dataset[i]
        except Exception as error:
            raise_own(error)
            info = dataset.get_data_info(i) if hasattr(dataset, 'get_data_info') else {}
            failures.setdefault(one_line(error), []).append(str(info.get('img_path', f'item {i}')))
    for reason, names in failures.items():
        yield part.error(f'{len(names)} items cannot be loaded ({first(names)}): {reason}')
