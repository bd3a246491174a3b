"""What is counted for a GPU is what the formulas say, and kernels leave less to do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import ROOT, load_tool

traffic = load_tool(ROOT / 'projects' / 'speed' / 'traffic.py')


def test_a_linear_layer_reads_and_writes_what_it_must():
    layer, x = nn.Linear(3, 5, device='meta'), torch.empty(7, 3, device='meta')
    with traffic.as_on_gpu('0'), traffic.Traffic() as counted:
        layer(x)
        assert layer(x).dtype == torch.bfloat16
    assert counted.launches['linear'] == 2
    assert counted.bytes['linear'] == 2 * 2 * (7 * 3 + 3 * 5 + 5 + 7 * 5)
    # The input is cast twice, weight and bias once: read in 4 bytes, written in 2.
    assert counted.launches['casts and copies'] == 4
    assert counted.bytes['casts and copies'] == 6 * (2 * 7 * 3 + 3 * 5 + 5)


def test_a_sum_of_halves_stays_one_launch():
    x = torch.empty(4, 4, device='meta', dtype=torch.bfloat16)
    with traffic.as_on_gpu('1'), traffic.Traffic() as counted:
        assert F.layer_norm(x + x.t(), (4,)).dtype == torch.float32
    assert counted.launches == {'elementwise and sums': 1, 'casts and copies': 1, 'layer norm': 1}
    assert counted.bytes['elementwise and sums'] == 3 * 16 * 2


@pytest.fixture(scope='module')
def counted():
    steps = [(mode, switch) for mode in traffic.MODES for switch in traffic.SWITCHES]
    return {(mode, switch): traffic.count('xtiny', mode, switch, 64, (64, 64)) for mode, switch in steps}


@pytest.mark.parametrize('mode', traffic.MODES)
def test_kernels_leave_less_to_do(mode, counted):
    plain, default, everything = (counted[mode, switch] for switch in traffic.SWITCHES)
    launches = [sum(step.launches.values()) for step in (plain, default, everything)]
    assert launches[0] > 1.3 * launches[1] > 1.3 * launches[2]
    assert sum(plain.bytes.values()) > 1.3 * sum(default.bytes.values())
    assert not torch.is_autocast_enabled('cuda')


def test_table_says_what_the_memory_allows(counted):
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in traffic.tables(counted, 64, 2.0).splitlines()]
    (row,) = [line for line in lines if line[:2] == ['evaluation', 'none']]
    moved = sum(counted['evaluation', '0'].bytes.values())
    assert float(row[4].replace(',', '')) == pytest.approx(2e12 * 64 / moved, abs=0.5)
