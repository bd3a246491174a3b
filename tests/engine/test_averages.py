"""Averaged weights, updated at once."""

import copy

import pytest
import torch
from mmdet.models.layers.ema import ExpMomentumEMA
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA, StochasticWeightAverage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import TOY, tool_here
from scopevit.engine.averages import update_at_once
from scopevit.models import ScopeViT

KINDS = [
    (ExponentialMovingAverage, dict(momentum=0.3)),
    (MomentumAnnealingEMA, dict(momentum=0.01, gamma=2)),
    (ExpMomentumEMA, dict(momentum=0.01, gamma=2)),
]


class Net(nn.Sequential):
    """Weights in two types and memory formats, one of them shared, and buffers of both kinds."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3), nn.Linear(4, 4).double())
        self.to(memory_format=torch.channels_last)
        self[2].weight = self[0].weight

    def learn(self):
        for value in (*self.parameters(), *self.buffers()):
            value.data.add_(torch.randn(value.shape).mul(10).to(value.dtype))


class Operators(TorchDispatchMode):
    """Counts the calls of each operator."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('options', [{}, dict(update_buffers=True), dict(interval=2, update_buffers=True)], ids=str)
@pytest.mark.parametrize(('kind', 'momentum'), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_averages_are_those_of_mmengine(kind, momentum, options):
    net = Net()
    theirs, ours = (kind(net, **momentum, **options) for _ in range(2))
    update_at_once(ours)
    for _ in range(7):
        net.learn()
        theirs.update_parameters(net)
        ours.update_parameters(net)
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)
    again = kind(Net(), **momentum, **options)  # without this
    again.load_state_dict(copy.deepcopy(ours.state_dict()))
    net.learn()
    for average in (theirs, ours, again):
        average.update_parameters(net)
        torch.testing.assert_close(dict(average.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('kind', 'momentum', 'calls'),
    [
        (*KINDS[0], dict(_foreach_lerp_=1)),
        (*KINDS[1], dict(_foreach_lerp_=1)),
        (*KINDS[2], dict(_foreach_mul_=1, _foreach_add_=1)),
    ],
    ids=[kind.__name__ for kind, _ in KINDS],
)
def test_an_update_is_a_call_or_two(kind, momentum, calls):
    net = ScopeViT('tiny')
    average = kind(net, **momentum, update_buffers=True)
    average.update_parameters(net)
    update_at_once(average)
    with Operators() as operators:
        average.update_parameters(net)
    changing = {name: count for name, count in operators.counts.items() if name.startswith('_foreach')}
    assert changing == calls
    assert operators.counts.get('lerp_', 0) == 0
    assert operators.counts['add_'] == 1  # of the steps


def test_an_average_of_another_kind_stays_as_it_is():
    average = StochasticWeightAverage(Net())
    update_at_once(average)
    assert not {'avg_func', 'update_parameters'} & set(vars(average))


@pytest.mark.slow
def test_a_training_with_ema_averages_at_once(toy_options, tmp_path, monkeypatch):
    tensors, average = [], torch._foreach_lerp_
    monkeypatch.setattr(torch, '_foreach_lerp_', lambda *lists: tensors.append(len(lists[0])) or average(*lists))
    short = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=64', 'train_dataloader.batch_size=16')
    tool_here('train.py', TOY, '--ema', '--work-dir', tmp_path, *toy_options, *short, check=True)
    weights = torch.load(tmp_path / 'epoch_1.pth')['state_dict'].values()
    assert tensors == 3 * [sum(value.is_floating_point() for value in weights)]  # the first of 4 steps copies


def test_averages_of_ones_own_stay_as_they_are():
    class ExponentialMovingAverage(StochasticWeightAverage):  # a name of MMEngine's
        pass

    own, known = ExponentialMovingAverage(Net()), MomentumAnnealingEMA(Net())
    update_at_once(own)
    assert 'avg_func' not in vars(own)
    update_at_once(known)
    once = known.avg_func
    update_at_once(known)
    assert known.avg_func == once
