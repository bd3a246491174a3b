"""Fast tests first; nothing may skip but what needs what a machine can lack, which is counted."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# Markers of what may skip, and what such tests need. CPU builds of torch bring no Triton.
MAY_SKIP = dict(gpu='a GPU', compiled_mmcv='a compiled mmcv', kernel='the compiled attention', triton='Triton')
sys.path.insert(0, str(Path(__file__).parent))  # for tests/reference

# Without a GPU kernels in Triton are interpreted, which Triton has to know when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')

# What is started in the background ignores these, as would trainings that tests send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Beside other workers each process has a core to itself, and so has what its tests start.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    from helpers import COMPILED_MMCV, KERNEL_IS_POSSIBLE, TRITON_IS_POSSIBLE

    are_there = (torch.cuda.is_available(), COMPILED_MMCV, KERNEL_IS_POSSIBLE, TRITON_IS_POSSIBLE)
    for item in items:
        for marker, is_there in zip(MAY_SKIP, are_there):
            if item.get_closest_marker(marker) and not is_there:
                item.add_marker(pytest.mark.skip(reason=marker))
    items.sort(key=lambda item: item.get_closest_marker('slow') is not None)


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get('skipped', [])
    reasons = Counter(report.longrepr[2].removeprefix('Skipped: ') for report in skipped)
    counts = [f'{reasons.pop(marker, 0)} tests that need {needed}' for marker, needed in MAY_SKIP.items()]
    terminalreporter.write_line(f'Skipped here: {", ".join(counts)}, {reasons.total()} others')


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """A test that skips for want of a package would hide a broken set-up."""
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    skipped = reporter.stats.get('skipped', []) if reporter else []
    if exitstatus == 0 and any(report.longrepr[2].removeprefix('Skipped: ') not in MAY_SKIP for report in skipped):
        session.exitstatus = 1


@pytest.fixture(autouse=True)
def toolboxes_as_they_were():
    """Default scopes, loggers and visualizers of one test are not there in the next, whatever the order."""
    from helpers import quiet_toolboxes

    with quiet_toolboxes():
        yield


@pytest.fixture(params=[1, 3], ids=['one_thread', 'three_threads'])
def threads(request):
    """Of torch, for the time of a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def root():
    return ROOT


@pytest.fixture(scope='session')
def fashion_mnist(tmp_path_factory):
    """The repository's subset of Fashion-MNIST, unpacked."""
    from helpers import tool_here

    out = tmp_path_factory.mktemp('data') / 'fashion_mnist_subset'
    tool_here('data/fashion_mnist.py', 'unpack', '--out-dir', out, check=True)
    return out


@pytest.fixture(scope='session')
def toy_options(fashion_mnist):
    """--cfg-options that let the toy config find its data."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return ['--cfg-options', *(f'{loader}.dataset.data_root={fashion_mnist}' for loader in loaders)]


@pytest.fixture(scope='session')
def toy_run(toy_options, tmp_path_factory):
    """Work dir of a finished training of the toy config."""
    from helpers import TOY, tool

    work_dir = tmp_path_factory.mktemp('toy')
    tool('train.py', TOY, '--work-dir', work_dir, *toy_options)
    return work_dir


@pytest.fixture(scope='session')
def models(tmp_path_factory):
    """A config and a checkpoint of a small model for each task."""
    from helpers import write_small_models

    return write_small_models(tmp_path_factory.mktemp('models'))
