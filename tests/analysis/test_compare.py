"""Measuring models side by side: what is run, in what order, and how much memory it takes."""

import json

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scopevit.analysis import Entry, Settings, compare
from scopevit.engine.errors import UserError

QUICK = dict(batch=2, warmup=1, rounds=3)


class Recorder(nn.Module):
    """Writes down what it is given, but for the counting of its operators."""

    def __init__(self, label='net', log=None):
        super().__init__()
        self.label, self.log = label, [] if log is None else log
        self.conv = nn.Conv2d(3, 4, 3)

    def __deepcopy__(self, memo):
        return Recorder(self.label).to('meta')

    def forward(self, x):
        y = self.conv(x)
        self.log.append((self.label, x, y, self.training))
        return y


class Steps(nn.Module):
    """Never has more than two tensors of its input's size at once."""

    def forward(self, x):
        y = x + 1
        z = y * 2
        del y
        return z + 1


class Deep(nn.Module):
    def __init__(self, with_cp):
        super().__init__()
        self.with_cp = with_cp
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU(), nn.GELU()) for _ in range(6))

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.with_cp else layer(x)
        return x


def test_models_run_in_turn():
    log = []
    entries = [Entry(label, Recorder(label, log), (8, 8)) for label in 'abc']
    compare(entries, Settings(**QUICK))
    warm_up, rounds, memory = 'abc', 'abc' + 'bca' + 'cab', 'abc'
    assert ''.join(label for label, *_ in log) == warm_up + rounds + memory
    assert not any(training for *_, training in log)


def test_report():
    entries = [
        Entry('small', nn.Conv2d(3, 4, 3), (8, 10)),
        Entry('large', nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (16, 16)),
    ]
    report = compare(entries, Settings(**QUICK))
    small, large = report.results
    assert (small.parameters, small.macs) == (4 * 28, 4 * 27 * 6 * 8)
    assert len(small.seconds) == len(large.ratios) == 3
    assert small.ratios == [1, 1, 1]
    assert large.ratios == [a / b for a, b in zip(small.seconds, large.seconds)]
    assert small.ms_per_image == pytest.approx(1e3 / small.images_per_second)
    assert sum(small.shares.values()) == pytest.approx(1)
    assert small.shares['conv'] > 0
    data = json.loads(json.dumps(report.to_dict()))
    assert data['settings']['batch'] == 2
    assert data['machine']['torch'] == torch.__version__
    assert data['results'][1]['ratio']['quartile1'] <= data['results'][1]['ratio']['quartile3']
    header, rule, *rows = report.table().splitlines()
    assert len(rows) == 2
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert '8x10' in rows[0]
    assert len(report.shares_table().splitlines()) == 4
    assert 'evaluation, batch 2, float32' in report.conditions()
    assert f'{torch.get_num_threads()} threads' in report.conditions()


def test_memory_of_evaluation():
    image = 2 * 3 * 64 * 64 * 4
    report = compare([Entry('steps', Steps(), (64, 64))], Settings(**QUICK))
    assert report.results[0].extra_memory == pytest.approx(2 * image, rel=0.02)


def test_memory_of_training():
    """Checkpoints keep less than a map for every layer."""
    entries = [Entry(str(with_cp), Deep(with_cp), (64, 64)) for with_cp in (False, True)]
    plain, saving = (result.extra_memory for result in compare(entries, Settings(train=True, **QUICK)).results)
    image = 2 * 3 * 64 * 64 * 4
    assert 18 * image <= plain <= 24 * image
    assert 6 * image <= saving <= 14 * image


def test_training_changes_no_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = compare([Entry('net', model, (8, 8))], Settings(train=True, **QUICK))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert 'training step' in report.conditions()


@pytest.mark.parametrize(
    ('settings', 'weights', 'result'),
    [
        (dict(), torch.float32, torch.float32),
        (dict(dtype='bfloat16'), torch.bfloat16, torch.bfloat16),
        (dict(dtype='bfloat16', autocast=True), torch.float32, torch.bfloat16),
        (dict(dtype='bfloat16', autocast=True, train=True), torch.float32, torch.bfloat16),
    ],
)
def test_types(settings, weights, result):
    model = Recorder()
    compare([Entry('net', model, (8, 8))], Settings(**QUICK, **settings))
    _, images, output, training = model.log[-1]
    assert (model.conv.weight.dtype, images.dtype, output.dtype) == (weights, weights, result)
    assert training == settings.get('train', False)


def test_channels_last():
    model = Recorder()
    compare([Entry('net', model, (8, 8))], Settings(**QUICK, channels_last=True))
    assert model.log[-1][1].is_contiguous(memory_format=torch.channels_last)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_several_sizes_are_compared_at_the_same_one():
    ours, theirs = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 8, 3)
    entries = [Entry(label, model, (s, s)) for label, model in (('us', ours), ('them', theirs)) for s in (8, 16)]
    results = compare(entries, Settings(**QUICK)).results
    assert results[1].ratios == [1, 1, 1]
    assert results[3].ratios == [a / b for a, b in zip(results[1].seconds, results[3].seconds)]


def test_budget():
    report = compare([Entry('net', nn.Conv2d(3, 4, 3), (8, 8))], Settings(batch=1, warmup=1, rounds=50, budget=0))
    assert len(report.results[0].seconds) == 3


def test_bad_input_is_named():
    with pytest.raises(UserError, match='mine does not run at 2x2: RuntimeError: .*[Kk]ernel size'):
        compare([Entry('mine', nn.Conv2d(3, 4, 3), (2, 2))], Settings(**QUICK))
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).requires_grad_(False)
    frozen.append(nn.Linear(144, 2))
    frozen.append(nn.Threshold(1, 0))
    with pytest.raises(UserError, match='frozen does not run'):
        compare([Entry('frozen', frozen.requires_grad_(False), (8, 8))], Settings(train=True, **QUICK))
