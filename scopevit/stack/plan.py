"""What tools/setup.sh asks of an environment: which torch it gets, and what else pip would change.

    python scopevit/stack/plan.py versions          what is there of the packages that constraints.txt names
    python scopevit/stack/plan.py torch             torch, torchvision, and the index that they come from
    python scopevit/stack/plan.py changes REPORT    what a dry run of pip reports

It takes a Python alone, and does not import torch, which takes seconds.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[2] / 'requirements' / 'constraints.txt'
OLDEST_TORCH = (2, 6)
TORCH_INDEX = 'https://download.pytorch.org/whl'  # /cpu, /cu126, ...
PYPI_CUDA = 13  # for which PyPI's torch of the constraints is built on Linux
PIP = f'{shlex.quote(sys.executable)} -m pip'


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r'\d+', version)[:2])


def fitting_torchvision(torch: str) -> str:
    """The versions of torchvision for a torch: one for each until 0.29, which takes every torch from 2.14 on."""
    minor = numbers(torch)[1]
    return '>=0.29' if numbers(torch) >= (2, 14) else f'==0.{minor + 15}.*'


def index_of(torch: str, cuda: str | None) -> str:
    """Where the torchvision of a torch comes from; '' for PyPI.

    Args:
        torch: Version of torch; a tag behind it counts only if it is one of PyTorch's own builds.
        cuda: The CUDA or ROCm that it is built for; None for a CPU build.
    """
    tag = torch.partition('+')[2]
    if not re.fullmatch(r'cpu|xpu|cu\d+|rocm[\d.]+', tag):
        tag = 'cpu' if cuda is None and platform.system() == 'Linux' else ''
    return f'{TORCH_INDEX}/{tag}' if tag else ''


def pinned(name: str) -> str:
    """The version of a package that constraints.txt names."""
    found = re.search(rf'^{name}==([^\s;]+)', CONSTRAINTS.read_text(), re.MULTILINE)
    assert found, name
    return found.group(1)


def torch_pair() -> tuple[str, str, str]:
    """Requirements of torch and torchvision, and the index that they come from ('' for PyPI); prints notes."""
    asked = os.environ.get('TORCH_INDEX_URL', '')
    torch, torchvision = version_of('torch'), version_of('torchvision')
    if torch is None:
        if not asked and platform.system() == 'Linux':
            check_driver()
        return f'torch=={pinned("torch")}', f'torchvision=={pinned("torchvision")}', asked
    if numbers(torch) < OLDEST_TORCH:
        sys.exit(
            f'error: {sys.executable} has torch=={torch}, and scopevit takes PyTorch 2.6 or newer: '
            f'{PIP} install --upgrade torch torchvision, or leave it as it is and set up another environment'
        )
    cuda = cuda_of_installed_torch()
    if differs(asked, torch, cuda):
        pins = f'torch=={pinned("torch")} torchvision=={pinned("torchvision")}'
        print(
            f'note: torch {torch} ({f"CUDA {cuda}" if cuda else "for CPUs"}) stays, though TORCH_INDEX_URL says '
            f'otherwise; to change it:\n  {PIP} install --force-reinstall --no-deps --index-url {asked} {pins} '
            '&& bash tools/setup.sh',
            file=sys.stderr,
        )
        asked = ''
    fitting = f'=={torchvision}' if torchvision else fitting_torchvision(torch)
    return f'torch=={torch}', f'torchvision{fitting}', asked or index_of(torch, cuda)


def cuda_of_installed_torch() -> str | None:
    """The CUDA or ROCm that the installed torch is built for, as its files have it; None for a CPU build."""
    spec = importlib.util.find_spec('torch')
    file = Path(spec.origin or '').with_name('version.py') if spec else Path()
    facts = runpy.run_path(str(file)) if file.is_file() else {}
    return facts.get('cuda') or facts.get('hip')


def differs(index: str, torch: str, cuda: str | None) -> bool:
    """Whether an index has other builds than the torch that is there; of one that is not PyTorch's nobody knows."""
    asked = re.search(r'/(cpu|cu\d+)/?$', index)
    if asked is None:
        return False
    return asked.group(1) != (f'cu{cuda.replace(".", "")}' if cuda else 'cpu')


def check_driver() -> None:
    """Before the download of a torch for CUDA: is there a GPU, and does its driver take that?"""
    cuda = cuda_of_driver()
    if cuda is None:
        print(
            'No NVIDIA GPU was found, but torch brings CUDA by default, some GB. Without:\n'
            f'  TORCH_INDEX_URL={TORCH_INDEX}/cpu bash tools/setup.sh',
            file=sys.stderr,
        )
    elif numbers(cuda)[0] < PYPI_CUDA:
        sys.exit(
            f"error: the GPU's driver is for CUDA {cuda}, PyPI's torch for CUDA {PYPI_CUDA}: it would not see the GPU. "
            'Update the driver, or take a torch for an older CUDA (or /cpu, for none):\n'
            f'  TORCH_INDEX_URL={TORCH_INDEX}/cu126 bash tools/setup.sh'
        )


def cuda_of_driver() -> str | None:
    """The newest CUDA that the driver of the NVIDIA GPUs takes; None without any."""
    if not shutil.which('nvidia-smi'):
        return None
    result = subprocess.run(['nvidia-smi'], capture_output=True, text=True)
    found = re.search(r'CUDA Version: *([\d.]+)', result.stdout)
    return found.group(1) if found and not result.returncode else None


def changes(report: Path) -> list[str]:
    """What a dry run of pip would install, first what takes the place of another version."""
    new, replaced = [], []
    for item in json.loads(report.read_text())['install']:
        name, version = item['metadata']['name'], item['metadata']['version']
        there = version_of(name)
        if there is None:
            new.append(f'{name} {version}')
        else:
            replaced.append(f'  {name} {version} in place of {there}')
    return [*replaced, f'  new: {", ".join(new)}' if new else '  nothing new']


def main() -> None:
    command, *words = sys.argv[1:]
    if command == 'versions':
        names = re.findall(r'^([\w-]+)==', CONSTRAINTS.read_text(), re.MULTILINE)
        print(*(f'{name} {version_of(name)}' for name in sorted(set(names))))
    elif command == 'torch':
        print(*torch_pair())
    elif command == 'changes':
        print('\n'.join(changes(Path(words[0]))))


if __name__ == '__main__':
    main()
