"""Builds mmcv with its own operators and puts it in mmcv-lite's place; few configs need it.

    scopevit install-mmcv

It takes a C++ compiler and minutes; for GPUs also nvcc of the CUDA that torch is built for. The wheel
is kept in ~/.cache/scopevit, under a name that says what it was built for. MAX_JOBS in the environment
is how many compilers run at once, TORCH_CUDA_ARCH_LIST the GPUs to compile for (those of this machine).
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..utils.cores import usable_cores
from .mmpose import pip

MMCV = '2.1.0'


def kept_wheels(gpus: str) -> Path:
    """The folder of the wheel for this Python, this torch and these GPUs."""
    import torch

    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    for_gpus = f'_sm-{gpus.replace(";", "-")}' if gpus else ''
    machine = f'{platform.system()}_{platform.machine()}'
    return cache / 'scopevit' / 'wheels' / f'mmcv-{MMCV}_{python}_torch-{torch.__version__}{for_gpus}_{machine}'


def use_cpp20(setup: Path) -> None:
    """Let mmcv's set-up ask the compiler for C++20, which torch's headers need from 2.14 on."""
    setup.write_text(setup.read_text().replace('-std=c++17', '-std=c++20'))


def build(folder: Path) -> Path:
    """Compile the wheel in a folder; returns where it lies."""
    import torch

    pip('install', 'ninja', 'psutil', 'wheel')
    pip('download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '-d', folder, f'mmcv=={MMCV}')
    shutil.unpack_archive(folder / f'mmcv-{MMCV}.tar.gz', folder)
    source = folder / f'mmcv-{MMCV}'
    if not re.match(r'2\.(\d|1[0-3])\.', torch.__version__):
        use_cpp20(source / 'setup.py')
    pip('wheel', '-v', '--no-build-isolation', '--no-deps', '-w', folder / 'wheel', source)
    return folder / 'wheel'


def install() -> None:
    """Build the wheel unless it is kept, and only then take mmcv-lite away."""
    import torch

    there = {'{}.{}'.format(*torch.cuda.get_device_capability(i)) for i in range(torch.cuda.device_count())}
    gpus = os.environ.get('TORCH_CUDA_ARCH_LIST') or ';'.join(sorted(there))
    os.environ.setdefault('MAX_JOBS', str(usable_cores()))
    os.environ['CFLAGS'] = f'-g0 {os.environ.get("CFLAGS", "")}'  # without debug symbols it takes half the time
    os.environ['MMCV_WITH_OPS'] = '1'
    if gpus:
        if not shutil.which('nvcc') and 'CUDA_HOME' not in os.environ:
            sys.exit(
                f"error: nvcc is missing: install the CUDA toolkit {torch.version.cuda}; without mmcv's own operators "
                'none is needed, for GPUs either'
            )
        os.environ.update(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=gpus)
    kept = kept_wheels(gpus)
    if not list(kept.glob('mmcv-*.whl')):
        with tempfile.TemporaryDirectory() as folder:
            built = build(Path(folder))
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(built, kept)
    pip('uninstall', '-y', 'mmcv-lite')
    # Always: an mmcv of the same version may have been built for another torch.
    pip('install', '--no-deps', '--force-reinstall', *kept.glob('mmcv-*.whl'))
    call = 'import torch, mmcv.ops; print(mmcv.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5))'
    subprocess.run([sys.executable, '-c', call], check=True)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(
        prog='scopevit install-mmcv', description=__doc__, formatter_class=style, allow_abbrev=False
    ).parse_args()
    try:
        install()
    except subprocess.CalledProcessError as error:
        sys.exit(f'error: this failed: {" ".join(map(str, error.cmd[1:]))}; its words are above')


if __name__ == '__main__':
    main()
