"""Training data whose order and augmentation follow from seed and position alone, so that a run can go on anywhere.

MMEngine draws augmentations from one random stream for each worker process: what becomes of an image depends on
which worker reads it and on how long that worker has lived. Here each item has a random state of its own, made from
the seed, the process, the epoch and the item's place in it.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from torch.utils.data import BatchSampler, Dataset, Sampler, get_worker_info

from ..registry import DATA_SAMPLERS
from ..utils.image import unreadable_files_named
from ..utils.randomness import random_state_kept


class Place(int):
    """An item's index that knows its place in the run, from which its random state follows.

    Attributes:
        epoch: How often the data have been gone through before.
        number: How many items of this epoch this process takes before.
    """

    epoch: int
    number: int

    @classmethod
    def of(cls, index: int, epoch: int, number: int) -> 'Place':
        """The index at a place."""
        place = cls(index)
        place.epoch, place.number = epoch, number
        return place

    def __reduce__(self) -> tuple:
        """To worker processes it goes with its attributes."""
        return Place.of, (int(self), self.epoch, self.number)


@DATA_SAMPLERS.register_module()
class PlacedBatchSampler(Sampler):
    """Batches of indices that know their places; it can begin at any batch without reading what comes before.

    Args:
        sampler: Gives the indices of the data.
        batch_size: Indices in a batch.
        drop_last: Whether to leave out a last batch that is not full.
        batches: Config of a batch sampler that forms the batches, such as mmdet's AspectRatioBatchSampler.
        done: Progress of a resumed run: the batches that were trained, ``iter``, and, if it counts epochs, the
            complete ones, ``epoch``, and the batches of each, ``epoch_length``.

    Attributes:
        first: Batches that the next iteration leaves out.
        left_out: Those that the first iteration left or leaves out.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        drop_last: bool = False,
        batches: dict | None = None,
        done: dict | None = None,
    ) -> None:
        self.sampler = sampler  # MMEngine tells it the epoch
        self.batch_size = batch_size
        self.inner: Sampler = BatchSampler(sampler, batch_size, drop_last)
        if batches is not None:
            self.inner = MMENGINE_DATA_SAMPLERS.build(
                batches, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        done = done or dict(iter=0)
        self.first = done['iter'] - done.get('epoch', 0) * len(self)
        if 'epoch' in done and (done['epoch_length'] != len(self) or not 0 <= self.first <= len(self)):
            self.first = 0  # other data, or another batch: the epoch begins again
        self.left_out = self.first

    @property
    def epoch(self) -> int:
        """The epoch that the sampler is told; 0 for one that never ends."""
        return getattr(self.sampler, 'epoch', 0)

    def __iter__(self) -> Iterator[list[Place]]:
        # A generator to its first line: data loaders ask for an iterator twice, and use the second.
        batches, number = iter(self.inner), 0
        while self.first:
            batch = next(batches, None)
            if batch is not None:
                self.first, number = self.first - 1, number + len(batch)
            elif number:  # all have been left out, and the next epoch begins
                getattr(self.sampler, 'set_epoch', lambda epoch: None)(self.epoch + 1)
                batches, number = iter(self.inner), 0
            else:  # there are no data
                self.first = 0
        for batch in batches:
            yield [Place.of(index, self.epoch, number + i) for i, index in enumerate(batch)]
            number += len(batch)

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]


class Items:
    """Reads a batch's items, and names a file that cannot be read; a data set's ``__getitems__``.

    Args:
        dataset: Where the items are.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list:
        return [self._read(index) for index in indices]

    def _read(self, index: int) -> object:
        with unreadable_files_named():
            return self.dataset[index]


class PlacedItems(Items):
    """Reads a batch's items, each under the random state of its place.

    Args:
        dataset: Where the items are.
        seed: Seed of the run.
        rank: Number of this process.
    """

    def __init__(self, dataset: Dataset, seed: int, rank: int) -> None:
        super().__init__(dataset)
        self.seed = seed
        self.rank = rank

    def __call__(self, places: Sequence[int]) -> list:
        # The random state of a training's own process is left as it is.
        with random_state_kept() if get_worker_info() is None else nullcontext():
            return super().__call__(places)

    def _read(self, place: int) -> object:
        if not isinstance(place, Place):  # of another sampler
            return super()._read(place)
        key = f'{self.seed} {self.rank} {place.epoch} {place.number}'.encode()
        digest = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), 'big')
        random.seed(digest)
        np.random.seed(digest % 2**32)
        torch.default_generator.manual_seed(digest % 2**63)
        return super()._read(int(place))
