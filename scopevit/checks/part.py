"""One data set of those that a split may join, as the rules look at it."""

import inspect
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from .findings import Finding


@dataclass(frozen=True)
class Part:
    """A data set to be checked, which need not be loaded.

    Attributes:
        where: Its name: the split's, with a number if that joins several (``'val[1]'``).
        key: Where its settings stand in the config.
        model: The model that is to take its items; None if that is not known.
        sample: How many of its images are opened.
        seed: Which ones.
        notes: What rules find out about it that is compared with other data sets.
    """

    where: str
    key: str
    dataset: BaseDataset
    model: nn.Module | None = None
    sample: int = 50
    seed: int = 0
    notes: dict = field(default_factory=dict, compare=False)

    @property
    def is_learnt(self) -> bool:
        return self.where.startswith('train')

    @property
    def transforms(self) -> list:
        """Those of the pipeline that its items go through."""
        return getattr(getattr(self.dataset, 'pipeline', None), 'transforms', None) or []

    def error(self, text: str) -> Finding:
        """A training with it would fail or learn nothing."""
        return Finding('error', self.where, text)

    def warning(self, text: str) -> Finding:
        """A training with it would run, with something wrong."""
        return Finding('warning', self.where, text)

    def note(self, text: str) -> Finding:
        """What is good to know of it."""
        return Finding('note', self.where, text)

    def info(self, text: str) -> Finding:
        """What was looked at."""
        return Finding('info', self.where, text)

    def choose(self, items: Iterable) -> list:
        """A sample of items."""
        items = list(items)
        return random.Random(self.seed).sample(items, min(self.sample, len(items)))


def parts(where: str, key: str, settings: dict) -> Iterator[tuple[str, str, dict]]:
    """Name, key and settings of the data sets that a split's settings wrap or join."""
    if settings.get('datasets'):
        for i, part in enumerate(settings['datasets']):
            yield from parts(f'{where}[{i}]', f'{key}.datasets.{i}', part)
    elif isinstance(settings.get('dataset'), dict):
        yield from parts(where, f'{key}.dataset', settings['dataset'])
    else:
        yield where, key, settings


def build(settings: dict, scope: str, **options: object) -> BaseDataset:
    """A data set of a toolbox, which is kept from downloading itself."""
    settings = dict(settings, **options)
    with DATASETS.switch_scope_and_registry(scope) as registry:
        kind = settings['type'] if isinstance(settings['type'], type) else registry.get(settings['type'])
        if kind is not None and 'download' in inspect.signature(kind).parameters:
            settings['download'] = False
        with DefaultScope.overwrite_default_scope(scope):
            return registry.build(settings)


def is_a(dataset: object, base: str, *same: str) -> bool:
    """Whether a data set is of a class of this name and has these of its methods unchanged."""
    found = next((kind for kind in type(dataset).__mro__ if kind.__name__ == base), None)
    return found is not None and all(getattr(type(dataset), name) is getattr(found, name) for name in same)


def innermost_datasets(dataset: object) -> Iterator[BaseDataset]:
    """The data sets within those that wrap or join them."""
    if isinstance(dataset, BaseDataset):
        yield dataset
    for inner in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or [])]:
        if inner is not None:
            yield from innermost_datasets(inner)
