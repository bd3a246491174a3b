"""The neck that makes the maps of another backbone."""

import pytest
import torch

from scopevit.models import LevelAdapter, ScopeViT

TINY = [32, 64, 128, 256]


def test_adapter_makes_the_maps_it_says():
    features = ScopeViT('xtiny', out_indices=(0, 1, 2, 3)).eval()(torch.rand(1, 3, 70, 100))
    adapter = LevelAdapter(TINY, out_channels=[5, 6, 7, 8], out_strides=[1, 8, 16, 64], first_stages=[0, 1, 0, 3])
    shapes = [tuple(x.shape[1:]) for x in adapter(features)]
    assert shapes == [(5, 72, 100), (6, 9, 13), (7, 5, 7), (8, 2, 2)]
    assert sum(x.mean() for x in adapter(features)).backward() is None
    assert all(parameter.grad is not None for parameter in adapter.parameters())
    with pytest.raises(ValueError, match='must be equally long'):
        LevelAdapter(TINY, out_channels=[5], out_strides=[4, 8], first_stages=[0])
