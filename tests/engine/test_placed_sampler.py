"""Training data whose order and augmentation follow from their places, and files that are named if they are broken."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import set_random_seed

from scopevit.engine.placed_sampler import Items, Place, PlacedBatchSampler, PlacedItems
from scopevit.utils.errors import UserError


def numbers(batches):
    return [[(int(i), i.epoch, i.number) for i in batch] for batch in batches]


def test_batches_go_on_where_they_were_left():
    sampler = DefaultSampler(range(10), seed=3)
    sampler.set_epoch(2)
    whole = numbers(PlacedBatchSampler(sampler, 3))
    assert [len(batch) for batch in whole] == [3, 3, 3, 1]
    assert [place[1:] for batch in whole for place in batch] == [(2, number) for number in range(10)]
    rest = PlacedBatchSampler(sampler, 3, done=dict(epoch=2, iter=10, epoch_length=4))
    assert numbers(rest) == whole[2:]
    assert numbers(rest) == whole  # the next epoch is whole again
    assert len(rest) == 4
    complete = PlacedBatchSampler(sampler, 3, done=dict(epoch=2, iter=12, epoch_length=4))
    assert numbers(complete) == []
    assert numbers(complete) == whole
    assert numbers(PlacedBatchSampler(sampler, 3, done=dict(epoch=2, iter=10, epoch_length=5))) == whole  # other data


def test_batches_of_a_sampler_without_end_go_on_where_they_were_left():
    def batches(**options):
        return PlacedBatchSampler(InfiniteSampler(range(7), seed=3), 3, **options)

    whole = numbers(itertools.islice(batches(), 9))
    assert numbers(itertools.islice(batches(done=dict(iter=5)), 4)) == whole[5:]


def test_items_do_not_depend_on_who_reads_them():
    """Each has a random state of its own, and the training's is left alone."""

    class Noise:
        def __getitem__(self, index):
            return index, random.random(), np.random.rand(), torch.rand(1).item()

    def read(places, rank=0):
        return PlacedItems(Noise(), 5, rank)(places)

    places = [Place.of(7, 1, number) for number in range(3)]
    set_random_seed(0)
    expected = torch.rand(1), np.random.rand()
    set_random_seed(0)
    all_at_once = read(places)
    assert (torch.rand(1), np.random.rand()) == expected
    assert all_at_once == [read([place])[0] for place in pickle.loads(pickle.dumps(places))]
    assert len({item[1:] for item in [*all_at_once, *read(places, rank=1), *read([Place.of(7, 2, 0)])]}) == 7


def test_a_broken_image_is_named_also_by_workers_that_start_from_nothing(tmp_path):
    """As those of Windows and macOS do: the data set is all that they get."""
    from mmpretrain.datasets import CustomDataset

    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'x.jpg').write_text('broken')
    dataset = CustomDataset(data_prefix=str(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    dataset.__getitems__ = Items(dataset)
    with pytest.raises(UserError, match=r'^image .*a/x.jpg cannot be decoded'):
        pickle.loads(pickle.dumps(dataset)).__getitems__([0])
