"""Examines the machine and the installed packages: what there is, what does not fit, what to do about it.

    python -m scopevit doctor

It ends with status 0 if a training can start, else with 1, and runs where torch or MMEngine is
broken or missing. Each check yields :class:`Finding` s; all that checks ask of the machine goes
through the functions below "Facts".
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
OLDEST_TORCH = (2, 1)
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
TOOLBOXES = dict(mmpretrain='mmpretrain', mmdet='mmdet', mmseg='mmsegmentation', mmpose='mmpose')  # by module
# Official distributions, and the names under which a maintained fork installs the same modules.
FORKS = {name: f'onedl-{name}' for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation')}
FORKS['mmdet'] = 'onedl-mmdetection'
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
SHOWN = (
    *('torch', 'torchvision', 'numpy', 'setuptools', 'mmengine', 'mmcv', 'mmcv-lite', *TOOLBOXES.values()),
    *(*FORKS.values(), 'xtcocotools', 'pycocotools', *OPENCV),
)


@dataclass(frozen=True)
class Finding:
    """Something that does not fit.

    Attributes:
        problem: What it is.
        remedy: A command, or what else to do.
        stops: Whether no training can start with it.
    """

    problem: str
    remedy: str
    stops: bool = True


# Facts


def version_of(distribution: str) -> Optional[str]:
    """Installed version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> Optional[BaseException]:
    """What importing a module raises; None if it works."""
    try:
        silence = io.StringIO()
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a broken package raises, it is what this is about
        return error
    return None


def gpus_of_driver() -> List[str]:
    """Names of the NVIDIA GPUs that the driver shows, whether torch can use them or not."""
    if not shutil.which('nvidia-smi'):
        return []
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    result = subprocess.run(command, capture_output=True, text=True)
    return [] if result.returncode else result.stdout.strip().splitlines()


def gpus_of_torch() -> List[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def unsupported_gpus() -> List[str]:
    """GPUs for whose compute capability the installed torch has no code."""
    import torch

    built = {int(name.split('_')[1].rstrip('af')) for name in torch.cuda.get_arch_list() if name.startswith('sm_')}
    capabilities = [10 * major + minor for major, minor in map(torch.cuda.get_device_capability, _gpu_numbers())]
    return [
        f'{torch.cuda.get_device_name(i)} (compute capability {capability / 10})'
        for i, capability in enumerate(capabilities)
        # Code for one capability runs on later ones of the same generation.
        if built and not any(b // 10 == capability // 10 and b <= capability for b in built)
    ]


def _gpu_numbers() -> range:
    import torch

    return range(torch.cuda.device_count())


def cuda_of_torch() -> Optional[str]:
    """CUDA version that the installed torch is built for; None for a CPU build."""
    import torch

    return torch.version.cuda or getattr(torch.version, 'hip', None)


def shared_memory() -> Optional[int]:
    """MiB of shared memory, through which loader processes hand on batches; None if the system has no such limit."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage('/dev/shm').total // 2**20
    return None


def attention_kernel() -> bool:
    from ..models.layers.attention import KERNEL

    return KERNEL is not None


def kernel_is_possible() -> bool:
    import torch

    return (
        sys.platform == 'linux'
        and platform.machine() == 'x86_64'
        and torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')
        and hasattr(torch.compiler, 'is_exporting')
    )


def mmcv_is_compiled() -> bool:
    import mmcv

    return any(Path(mmcv.__file__).parent.glob('_ext.*'))


# Checks


def numbers(version: str) -> Tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r'\d+', version)[:2])


def check_python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    if not OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        yield Finding(
            f'Python {version[0]}.{version[1]}; 3.{OLDEST_PYTHON[1]} to 3.{NEWEST_PYTHON[1]} are supported',
            'uv venv --python 3.12 --seed .venv, or pyenv install 3.12, and set up again there',
            stops=version < OLDEST_PYTHON,
        )


def check_torch() -> Iterator[Finding]:
    version = version_of('torch')
    error = import_error('torch')
    if error is not None:
        what = 'is not installed' if version is None else f'{version} cannot be imported: {_words(error)}'
        yield Finding(f'torch {what}', 'pip install torch torchvision')
    elif version and numbers(version) < OLDEST_TORCH:
        yield Finding(
            f'torch {version} is too old', f"pip install --upgrade 'torch>={_dotted(OLDEST_TORCH)}' torchvision"
        )


def check_torchvision() -> Iterator[Finding]:
    torch, torchvision = version_of('torch'), version_of('torchvision')
    if torch is None or import_error('torch') is not None:
        return
    major, minor = numbers(torch)
    fitting = f'0.{minor + 15}' if major == 2 else None  # torchvision counts along with torch
    index = f' --index-url {CPU_INDEX}' if '+cpu' in torch or cuda_of_torch() is None else ''
    remedy = (
        f"pip install --force-reinstall --no-deps{index} 'torchvision=={fitting}.*'"
        if fitting
        else 'pip install torchvision'
    )
    if torchvision is None:
        yield Finding('torchvision is not installed', remedy)
        return
    error = import_error('torchvision')
    if error is not None:
        yield Finding(f'torchvision {torchvision} does not work with torch {torch}: {_words(error)}', remedy)
    elif fitting and _dotted(numbers(torchvision)) != fitting:
        yield Finding(
            f'torchvision {torchvision} is not made for torch {torch}, but for another one', remedy, stops=False
        )


def check_setuptools() -> Iterator[Finding]:
    if import_error('pkg_resources') is not None:
        found = (
            f'setuptools {version_of("setuptools")} has no pkg_resources'
            if version_of('setuptools')
            else 'setuptools is missing'
        )
        yield Finding(f'{found}; MMEngine imports pkg_resources', "pip install 'setuptools<82'")


def check_mmengine() -> Iterator[Finding]:
    error = import_error('mmengine')
    if error is not None:
        yield from _explain('MMEngine', 'mmengine', error)


def check_mmcv() -> Iterator[Finding]:
    mmcv, lite = version_of('mmcv'), version_of('mmcv-lite')
    if mmcv and lite:
        yield Finding(
            f'mmcv {mmcv} and mmcv-lite {lite} are both installed and share their files',
            "pip uninstall -y mmcv mmcv-lite, then pip install 'mmcv-lite<2.2' (or mmcv, to have it compiled)",
            stops=mmcv != lite,
        )
    version = mmcv or lite
    if version and numbers(version) >= (2, 2):
        yield Finding(f'mmcv {version} is refused by mmdet and mmsegmentation', "pip install 'mmcv-lite<2.2'")
    error = import_error('mmcv')
    if error is not None:
        yield from _explain('mmcv', 'mmcv-lite<2.2', error)
    elif not mmcv_is_compiled():
        yield Finding(
            "mmcv has no compiled operators; torchvision's serve all configs but those with CARAFE, deformable RoI "
            'pooling, rotated boxes or point clouds',
            'nothing, unless you need those: bash tools/setup.sh --mmcv-operators',
            stops=False,
        )


def check_toolboxes() -> Iterator[Finding]:
    """Those that are installed; which ones are needed depends on the task."""
    there = [module for module, name in TOOLBOXES.items() if version_of(name) or version_of(FORKS.get(name, name))]
    if not there:
        yield Finding(
            'no toolbox is installed', "pip install 'scopevit[classification]' (or detection, segmentation, pose)"
        )
    for module in there:
        error = import_error(f'{module}.models')
        if error is not None:
            yield from _explain(module, TOOLBOXES[module], error)


def check_forks() -> Iterator[Finding]:
    official = [name for name in FORKS if version_of(name)]
    forks = [fork for fork in FORKS.values() if version_of(fork)]
    both = [name for name in official if FORKS[name] in forks]
    if both:
        yield Finding(
            f'two distributions of {", ".join(both)} write the same modules',
            f'pip uninstall -y {" ".join([*both, *(FORKS[name] for name in both)])}, then install one of them again',
        )
    elif official and forks:
        yield Finding(
            f'packages of two OpenMMLab families are mixed: {", ".join(official)} and {", ".join(forks)}',
            'install all of one family',
            stops=False,
        )


def check_evaluation() -> Iterator[Finding]:
    if version_of('mmpose') is None:
        return
    error = import_error('xtcocotools.mask')
    if error is not None:
        numpy = f' beside numpy {version_of("numpy")}' if 'numpy' in str(error) else ''
        yield Finding(
            f'xtcocotools, which mmpose evaluates with, cannot be imported{numpy}: {_words(error)}',
            'python -m scopevit install-mmpose',
        )


def check_opencv() -> Iterator[Finding]:
    there = [name for name in OPENCV if version_of(name)]
    if len(there) > 1:
        yield Finding(
            f'{" and ".join(there)} write the same files',
            f'pip uninstall -y {" ".join(there)}, then pip install {there[0]}=={version_of(there[0])}',
            stops=False,
        )
    error = import_error('cv2')
    if not there:
        yield Finding('OpenCV is not installed', 'pip install opencv-python')
    elif error is not None and re.search('libGL|libgthread', str(error)):
        yield Finding(
            f'OpenCV lacks a library of the system: {_words(error)}',
            'sudo apt-get install -y libgl1 libglib2.0-0, or use opencv-python-headless in its place',
        )
    elif error is not None:
        yield from _explain('OpenCV', 'opencv-python', error)


def check_gpu() -> Iterator[Finding]:
    if import_error('torch') is not None:
        return
    driver = gpus_of_driver()
    if driver and not gpus_of_torch():
        cuda = cuda_of_torch()
        if cuda is None:
            remedy = 'pip install --force-reinstall torch torchvision (without the index of CPU builds)'
            why = f'torch {version_of("torch")} is a CPU build'
        else:
            remedy = (
                f'update the driver for CUDA {cuda}, or install a torch for an older CUDA; look at CUDA_VISIBLE_DEVICES'
            )
            why = f'torch, built for CUDA {cuda}, does not see it'
        yield Finding(f'there is a GPU ({driver[0]}), but {why}: trainings would run on the CPU', remedy, stops=False)
    for gpu in unsupported_gpus():
        yield Finding(
            f'torch {version_of("torch")} has no code for {gpu}',
            'install a torch for an older CUDA that has it',
        )


def check_shared_memory() -> Iterator[Finding]:
    size = shared_memory()
    if size is not None and size < 1024:
        yield Finding(
            f'{size} MiB of shared memory: loader processes will die with a bus error on large batches',
            'docker run --ipc=host (or --shm-size=8g), or train_dataloader.num_workers=0',
            stops=False,
        )


def check_kernel() -> Iterator[Finding]:
    if import_error('scopevit.models') is None and kernel_is_possible() and not attention_kernel():
        yield Finding(
            "ScopeViT's attention kernel for CPUs is missing: PyTorch's computes the same, more slowly",
            'install a C++ compiler, then install scopevit again: pip install --force-reinstall --no-deps .',
            stops=False,
        )


def check_safe_loading() -> Iterator[Finding]:
    torch = version_of('torch')
    if os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD') in ('1', 'y', 'yes', 'true'):
        yield Finding(
            'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: checkpoints may run code when they are loaded',
            'unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD; scopevit reads checkpoints of MMEngine without it',
            stops=False,
        )
    elif torch and numbers(torch) < (2, 6):
        yield Finding(
            f'torch {torch}: --resume may run code of a checkpoint, since safe loading is not the default before 2.6',
            "pip install --upgrade 'torch>=2.6' torchvision, or resume from checkpoints of your own alone",
            stops=False,
        )


CHECKS: Tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_torch,
    check_torchvision,
    check_setuptools,
    check_mmengine,
    check_mmcv,
    check_toolboxes,
    check_forks,
    check_evaluation,
    check_opencv,
    check_gpu,
    check_shared_memory,
    check_kernel,
    check_safe_loading,
)


def _explain(what: str, requirement: str, error: BaseException) -> Iterator[Finding]:
    """A package that cannot be imported: it, or one that it needs, is missing, or does not fit."""
    missing = getattr(error, 'name', None) if isinstance(error, ModuleNotFoundError) else None
    transformers = version_of('transformers')
    if missing and missing.split('.')[0] not in re.split(r'\W', requirement):
        name = missing.split('.')[0]
        yield Finding(f'{what} lacks the package {name}', f'pip install {name}')
    elif missing:
        yield Finding(f'{what} is not installed', f"pip install '{requirement}'")
    elif 'transformers' in str(error) or (what == 'mmpretrain' and transformers and numbers(transformers) >= (4, 50)):
        yield Finding(
            f'{what} does not work with transformers {transformers}: {_words(error)}', "pip install 'transformers<4.50'"
        )
    else:
        yield Finding(
            f'{what} cannot be imported: {_words(error)}', f"pip install --force-reinstall --no-deps '{requirement}'"
        )


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0] if lines else ""}'


def _dotted(version: Tuple[int, ...]) -> str:
    return '.'.join(map(str, version))


# Report


def describe() -> Dict[str, str]:
    """Machine and stack, for a report."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    facts = {
        'system': f'{platform.system()} {platform.machine()}, {cores} cores',
        'Python': f'{platform.python_version()} in {sys.prefix}',
    }
    if import_error('torch') is None:
        facts['GPUs'] = ', '.join(gpus_of_torch()) or 'none'
    facts.update((name, version) for name in SHOWN for version in [version_of(name)] if version)
    return facts


def examine() -> List[Finding]:
    """What all checks find, the worst first."""
    findings = [finding for check in CHECKS for finding in check()]
    return sorted(findings, key=lambda finding: not finding.stops)


def main() -> None:
    argparse.ArgumentParser(prog='scopevit doctor', description=__doc__.splitlines()[0]).parse_args()
    for name, fact in describe().items():
        print(f'{name:24}{fact}')
    findings = examine()
    for finding in findings:
        print(f'\n{"error" if finding.stops else "note"}: {finding.problem}\n  {finding.remedy}')
    stops = any(finding.stops for finding in findings)
    print('\nA training cannot start here: see the errors above.' if stops else '\nA training can start.')
    sys.exit(int(stops))


if __name__ == '__main__':
    main()
