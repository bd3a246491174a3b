"""What is to be run on a GPU runs at toy size on a CPU, and ends in time."""

import os
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers import ROOT, load_tool

SPEED = ROOT / 'projects' / 'speed'
accuracy = load_tool(SPEED / 'gpu_accuracy.py')
effect = load_tool(SPEED / 'gpu_settings_effect.py')


def test_errors_are_relative_and_leave_out_gradients_that_are_zero():
    expected = {'map 1': torch.ones(4), 'map 2': torch.ones(9), 'a': torch.ones(4), 'b': torch.full((4,), 1e-12)}
    values = {name: value.clone() for name, value in expected.items()}
    values['map 2'][0] += 0.3
    values['a'][1] -= 0.5
    values['b'] += 1e-10
    of_map, of_gradient, name = accuracy.errors(values, expected)
    assert (of_map, of_gradient, name) == (pytest.approx(0.1), pytest.approx(0.25), 'a')
    values['map 1'][0] = float('nan')
    assert accuracy.errors(values, expected)[0] == float('inf')


@pytest.mark.slow
def test_accuracy_is_compared_in_each_format():
    rows = accuracy.compare('xtiny', [(37, 61)], 'cpu')
    assert [row[:2] for row in rows] == [('37x61', dtype) for dtype in ('float32', 'bfloat16', 'float16')]
    (single, half, other) = (row[2:4] for row in rows)
    assert max(single) < 1e-5
    assert 1e-3 < half[0] < 2e-2
    assert 1e-4 < other[0] < half[0]


def test_each_setting_is_measured_off_and_on(monkeypatch):
    monkeypatch.setattr(effect, 'ScopeViT', lambda *args, **options: OneMap())
    switched = []
    monkeypatch.setitem(effect.SETTINGS, 'cudnn_benchmark', switched.append)
    args = SimpleNamespace(device='cpu', batch_size=2, size=(8, 8), rounds=2)
    row = effect.effect('cudnn_benchmark', args)
    assert switched == [False, True] * 3 + [False]
    assert row[0] == 'cudnn_benchmark'
    assert len(row) == len(next(effect.effects(args)))
    assert min(float(cell.replace(',', '')) for cell in row[1:3]) > 0


def test_no_way_to_plan_sees_a_size_of_another(monkeypatch, capsys):
    sizes = []
    monkeypatch.setattr(effect, 'ScopeViT', lambda *args, **options: OneMap())
    monkeypatch.setattr(effect.Training, 'milliseconds', lambda self, step: sizes.append(step.args[0].shape[2:]) or 1.0)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    rows = list(effect.plans(SimpleNamespace(device='cpu', scale=8, compile=False)))
    torch.backends.cuda.enable_cudnn_sdp(before)
    assert [row[0] for row in rows[2:]] == ['as set for a detector', "with cuDNN's attention"]
    assert {len(row) for row in rows} == {7}
    new = [size for size in sizes if sizes.count(size) == 2]
    assert len(new) == 2 * 2 * 6


class OneMap(nn.Conv2d):
    """A convolution in place of a backbone."""

    def __init__(self):
        super().__init__(3, 4, 1)

    def forward(self, x):
        return (super().forward(x),)


@pytest.mark.slow
def test_what_does_not_fit_is_recorded_and_what_runs_too_long_is_ended(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\ncase "$*" in *gpu_accuracy*) echo one row; exec sleep 100;; esac\n')
    python.chmod(0o755)
    result = subprocess.run(
        ['bash', SPEED / 'gpu_report.sh', tmp_path / 'out', 'accuracy', 'training'],
        env=os.environ | {'DEVICE': 'cpu', 'MINUTES': '0.1', 'PYTHON': str(python)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    report = (tmp_path / 'out' / 'report.md').read_text()
    assert '## accuracy: out of time after' in report
    assert 'one row' in report
    assert '## training: not run' in report
