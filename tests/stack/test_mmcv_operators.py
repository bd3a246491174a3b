"""Building mmcv's own operators: as torch asks, kept, and mmcv-lite stays until they are there."""

import shutil
import subprocess
import sys
import tarfile

import pytest
import torch

from scopevit.stack import mmcv_operators


@pytest.fixture
def pips(monkeypatch, tmp_path):
    """Stands in for pip: downloads a source, makes a wheel of it, and writes down what it is called with."""
    calls = []

    def pip(*words):
        calls.append(' '.join(map(str, words)))
        if words[0] == 'download':
            folder = tmp_path / f'mmcv-{mmcv_operators.MMCV}'
            folder.mkdir(exist_ok=True)
            (folder / 'setup.py').write_text("flags = '-std=c++17'")
            with tarfile.open(words[words.index('-d') + 1] / f'{folder.name}.tar.gz', 'w:gz') as archive:
                archive.add(folder, folder.name)
        elif words[0] == 'wheel':
            to = words[words.index('-w') + 1]
            to.mkdir()
            shutil.copy(words[-1] / 'setup.py', to / 'mmcv-2.1.0-fake.whl')

    monkeypatch.setattr(mmcv_operators, 'pip', pip)
    monkeypatch.setattr(mmcv_operators.subprocess, 'run', lambda command, check: None)
    for name in ('CFLAGS', 'MAX_JOBS', 'MMCV_WITH_OPS', 'FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST'):
        monkeypatch.setenv(name, '')  # so that they are as before at the end
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return calls


@pytest.mark.parametrize(('version', 'standard'), [('2.13.0+cpu', 'c++17'), ('2.14.1', 'c++20')])
def test_mmcv_is_compiled_as_its_torch_asks_and_kept(version, standard, pips, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, '__version__', version)
    mmcv_operators.install()
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    (wheel,) = (tmp_path / 'cache/scopevit/wheels').glob(f'mmcv-2.1.0_{python}_torch-{version}_*/mmcv-*.whl')
    assert f'-std={standard}' in wheel.read_text()
    assert mmcv_operators.os.environ['CFLAGS'].startswith('-g0')
    assert pips[-2:] == ['uninstall -y mmcv-lite', f'install --no-deps --force-reinstall {wheel}']
    wheel.write_text('kept')
    del pips[:]
    mmcv_operators.install()
    assert wheel.read_text() == 'kept'
    assert len(pips) == 2


def test_mmcv_lite_stays_where_the_build_fails(pips, monkeypatch):
    build = mmcv_operators.pip

    def fail(*words):
        build(*words)
        if words[0] == 'wheel':
            raise subprocess.CalledProcessError(1, ['python', '-m', 'pip', *words])

    monkeypatch.setattr(mmcv_operators, 'pip', fail)
    monkeypatch.setattr(sys, 'argv', ['install-mmcv'])
    with pytest.raises(SystemExit, match='error: this failed: -m pip wheel'):
        mmcv_operators.main()
    assert not any('uninstall' in call for call in pips)


def test_nvcc_is_asked_for_before_anything_else(pips, monkeypatch):
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    monkeypatch.setenv('PATH', '')
    monkeypatch.delenv('CUDA_HOME', raising=False)
    with pytest.raises(SystemExit, match='nvcc is missing: install the CUDA toolkit'):
        mmcv_operators.install()
    assert pips == []


def test_the_version_is_that_of_the_tested_stack(root):
    assert f'mmcv=={mmcv_operators.MMCV}' in (root / 'requirements/constraints.txt').read_text().splitlines()
