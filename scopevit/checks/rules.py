"""Which rules are for which data set."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import nn

from ..utils.building import wrong_setting
from ..utils.errors import one_line, raise_own
from .classes import check_class_count, check_names_are_listed, classes_of
from .classification import check_class_folders, check_list
from .coco import OBJECT_RULES, check_coco
from .findings import Finding
from .part import Part, build, is_a, parts
from .paths import check_paths
from .pose import PERSON_RULES
from .segmentation import check_segmentation

KINDS = (
    ('people', 'BaseCocoStyleDataset', ('load_data_list', 'parse_data_info')),
    ('objects', 'CocoDataset', ('load_data_list', 'parse_data_info')),
    ('classes', 'CustomDataset', ('load_data_list',)),
    ('label maps', 'BaseSegDataset', ('load_data_list',)),
)


def parts_of(cfg: Config, split: str, model: nn.Module | None, **sample: int) -> Iterator[Part | Finding]:
    """The data sets that a split joins, not loaded; in place of one that cannot be built, what is wrong with it."""
    key = f'{split}_dataloader.dataset'
    for where, place, settings in parts(split, key, cfg[f'{split}_dataloader'].dataset):
        try:
            dataset = build(settings, cfg.get('default_scope') or 'mmengine', lazy_init=True)
        except Exception as error:
            raise_own(error)
            yield Finding('error', where, cannot_be_built(settings, error, cfg))
            continue
        yield Part(where, place, dataset, model, **sample)  # type: ignore[arg-type]


def cannot_be_built(settings: dict, error: Exception, cfg: Config) -> str:
    """What is told of a data set that cannot be built, with the setting at fault."""
    return f'the data set {settings.get("type")} cannot be built: {wrong_setting(error, cfg) or one_line(error)}'


def check_part(part: Part) -> Iterator[Finding]:
    """The files of one data set are there, and what they hold is sound."""
    missing = list(check_paths(part.where, part.key, part.dataset))
    yield from missing
    if missing:
        return
    kind = kind_of(part.dataset)
    if kind in ('people', 'objects'):
        yield from check_coco(part, PERSON_RULES if kind == 'people' else OBJECT_RULES)
    else:
        yield from check_names_are_listed(part.where, classes_of(part.dataset))
    if kind == 'classes':
        yield from check_list(part) if part.dataset.ann_file else check_class_folders(part)
    elif kind != 'people':
        if kind == 'label maps':
            yield from check_segmentation(part)
        labels = part.notes.get('labels')
        if labels != []:  # else it has been said which classes to write, and how many that are
            yield from check_class_count(part.where, classes_of(part.dataset), part.model, labels or ())


def kind_of(dataset: BaseDataset) -> str | None:
    """What a data set's images are labelled with, if there are rules for the way in which it reads that."""
    for kind, base, methods in KINDS:
        if is_a(dataset, base, *methods):
            return kind
    return None


def check_split(cfg: Config, split: str, model: nn.Module | None, **sample: int) -> Iterator[Finding]:
    """All data sets of a split, one after the other."""
    for part in parts_of(cfg, split, model, **sample):
        if isinstance(part, Finding):
            yield part
        else:
            yield from check_part(part)
