"""Measuring models side by side: what is run, in what order, and how much memory it takes."""

import itertools
import json
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scopevit.analysis import Entry, Settings, compare, measuring
from scopevit.utils.errors import UserError

QUICK = dict(batch=2, warmup=1, rounds=3, calls=1)


@pytest.fixture(autouse=True)
def small_yardsticks(monkeypatch):
    monkeypatch.setitem(measuring.MATMUL_SIDES, 'cpu', 64)
    monkeypatch.setitem(measuring.COPIED_BYTES, 'cpu', 4096)


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


class Breaks(nn.Conv2d):
    """Fails in the given call, not counting that of the counter."""

    def __init__(self, call):
        super().__init__(3, 4, 3)
        self.call, self.calls = call, 0

    def forward(self, x):
        if not x.is_meta:
            self.calls += 1
            if self.calls == self.call:
                raise RuntimeError('out of  luck')
        return super().forward(x)


def order_of(rounds, calls):
    log = []
    entries = [Entry(label, Recorder(label, log), (8, 8)) for label in 'abc']
    compare(entries, Settings(batch=2, warmup=1, rounds=rounds, calls=calls))
    assert not any(training for *_, training in log)
    return ''.join(label for label, *_ in log)


def test_models_run_in_random_order():
    found = order_of(rounds=6, calls=2)
    # A sample is of two steps in a row, after one that is not measured; so is the profile.
    warm_up, *rounds, profile = found[:3], *re.findall('.{9}', found[3:])
    assert (warm_up, profile) == ('abc', 'aaabbbccc')
    assert len(rounds) == 6
    samples = [re.findall('(.)\\1\\1', one) for one in rounds]
    assert all(sorted(one) == ['a', 'b', 'c'] for one in samples)
    assert len({''.join(one) for one in samples}) >= 3
    assert order_of(rounds=6, calls=2) == found


@pytest.mark.parametrize(('step', 'calls', 'runs'), [(0.0625, 4, 1 + 4), (1.0, 1, 1 + 1), (2.5, 1, 1)])
def test_samples_last_long_enough(monkeypatch, step, calls, runs):
    """Of a fast model they are of several steps; steps of seconds are not repeated."""
    clock = SimpleNamespace(perf_counter=itertools.count(0.0, step).__next__)
    monkeypatch.setattr(measuring, 'time', clock)  # between two looks at it one step has passed
    log = []
    report = compare([Entry('net', Recorder('net', log), (8, 8))], Settings(batch=2, warmup=2, rounds=3))
    assert report.results[0].calls == calls
    assert len(log) == 2 + 3 * runs + runs  # warm-up, rounds, profile


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
    assert large.shares['norm'] > 0
    assert min(report.machine['matmul_gflops'], report.machine['copy_gbytes']) > 0
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
    settings = Settings(train=True, threads=1, **QUICK)  # convolutions of several threads need memory of their own
    plain, saving = (result.extra_memory for result in compare(entries, settings).results)
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


def test_sizes_of_one_model_in_another_type():
    """It is cast for the first of them."""
    model = nn.Conv2d(3, 4, 3)
    report = compare([Entry('net', model, (s, s)) for s in (8, 16)], Settings(**QUICK, dtype='bfloat16'))
    assert [result.macs for result in report.results] == [4 * 27 * 36, 4 * 27 * 196]
    assert not report.failures


def test_budget():
    report = compare(
        [Entry('net', nn.Conv2d(3, 4, 3), (8, 8))], Settings(batch=1, warmup=1, rounds=50, calls=1, budget=0)
    )
    assert len(report.results[0].seconds) == 3


def test_threads_are_set_for_the_measurement_alone():
    before = torch.get_num_threads()
    seen = []

    class Net(nn.Conv2d):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    report = compare([Entry('net', Net(3, 4, 3), (8, 8))], Settings(**QUICK, threads=before + 1))
    assert report.machine['threads'] == before + 1
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_what_is_known_after_each_round():
    known = []
    entries = [Entry(label, nn.Conv2d(3, 4, 3), (8, 8)) for label in 'ab']
    compare(entries, Settings(**QUICK), after_round=lambda report: known.append(json.dumps(report.to_dict())))
    known = [json.loads(text)['results'][1] for text in known]
    assert [len(result['seconds']) for result in known] == [1, 2, 3]
    assert all(result['ratio']['median'] > 0 for result in known)


@pytest.mark.parametrize('train', [False, True])
def test_floors_come_from_the_rates_measured_beside(train):
    model = nn.Conv2d(3, 4, 3, bias=False)  # 108 weights, 36 outputs a channel of an image of 8x8
    report = compare([Entry('net', model, (8, 8))], Settings(**dict(QUICK, train=train)))
    floors, machine = report.results[0].floors, report.machine
    operations = 2 * 108 * 36 * (3 if train else 1)
    assert floors['operations'] == pytest.approx(operations / machine['peak_gflops'] / 1e6)
    copied = 4 * 108 * (9 if train else 1) / QUICK['batch']
    assert floors['bytes'] == pytest.approx(copied / machine['copy_gbytes'] / 1e6)
    assert max(floors.values()) < report.results[0].ms_per_image
    assert 'floor, ms' in report.table()


@pytest.mark.slow
def test_compiled():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU())
    report = compare([Entry('net', model, (16, 8))], Settings(**QUICK, compile=True))
    assert not report.failures
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] >= 1
    assert 'torch.compile' in report.conditions()


@pytest.mark.slow
@pytest.mark.parametrize(('dynamic', 'programs'), [(False, 3), (True, 1)])
def test_more_sizes_than_are_compiled_by_default(monkeypatch, dynamic, programs):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='eager'))
    before = torch._dynamo.utils.counters['stats'].get('unique_graphs', 0)
    model = nn.Conv2d(3, 4, 3)
    entries = [Entry('net', model, (16, width)) for width in (8, 12, 16)]
    with torch._dynamo.config.patch(recompile_limit=1):
        report = compare(entries, Settings(**QUICK, compile=True, dynamic=dynamic))
    assert not report.failures
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] - before == programs


@pytest.mark.gpu
@pytest.mark.parametrize('train', [False, True])
def test_on_a_gpu(train):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1))
    entries = [Entry('net', model, (64, 64)), Entry('steps', nn.Sequential(nn.Conv2d(3, 3, 1), Steps()), (64, 64))]
    settings = Settings(batch=2, warmup=2, rounds=3, device='cuda', dtype='bfloat16', autocast=True, train=train)
    report = compare(entries, settings)
    assert not report.failures
    assert report.machine['device'] == torch.cuda.get_device_name()
    for result in report.results:
        assert len(result.seconds) == 3
        assert min(result.seconds) > 0
        assert result.extra_memory >= 2 * 3 * 64 * 64 * 2
        assert sum(result.shares.values()) == pytest.approx(1)
        assert result.shares['conv'] > 0
    assert 0 < report.results[0].efficiency < 1


def test_a_model_that_fails_becomes_a_row():
    entries = [Entry('net', nn.Conv2d(3, 4, 3), (8, 8)), Entry('mine', nn.Conv2d(3, 4, 3), (2, 2))]
    # Warm-up, two samples of two steps, and in the third round the last.
    entries.append(Entry('late', Breaks(call=6), (8, 8)))
    entries.append(Entry('last', Breaks(call=8), (8, 8)))
    report = compare(entries, Settings(**QUICK))
    net, mine, late, last = report.results
    assert report.measured == [net]
    assert len(net.seconds) == 3
    assert re.fullmatch('mine does not run at 2x2: RuntimeError: .*[Kk]ernel size.*', report.failures[0])
    assert late.error == last.error == 'RuntimeError: out of luck'
    assert (len(mine.seconds), len(late.seconds), len(last.seconds)) == (0, 2, 3)
    assert [line.count('fails') for line in report.table().splitlines()[:6]] == [0, 0, 0, 1, 1, 1]
    assert 'mine does not run at 2x2' in report.table()
    assert len(report.shares_table().splitlines()) == 3
    assert json.loads(json.dumps(report.to_dict()))['results'][2]['error'] == late.error


def test_nothing_is_compared_with_a_model_that_fails():
    entries = [Entry('mine', nn.Conv2d(3, 4, 3), (2, 2)), Entry('net', nn.Conv2d(3, 4, 3), (8, 8))]
    report = compare(entries, Settings(**QUICK))
    assert report.results[1].ratios == []
    assert report.results[1].images_per_second > 0
    assert '-' in report.table().splitlines()[3].split('|')[9]


def test_bad_input_is_named():
    with pytest.raises(UserError, match='mine does not run at 2x2: RuntimeError: .*[Kk]ernel size'):
        compare([Entry('mine', nn.Conv2d(3, 4, 3), (2, 2))], Settings(**QUICK))
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).requires_grad_(False)
    with pytest.raises(UserError, match='frozen does not run'):
        compare([Entry('frozen', frozen, (8, 8))], Settings(train=True, **QUICK))
