"""Examines the machine and the installed packages: what there is, what does not fit, what to do about it.

    python -m scopevit doctor

It ends with status 0 if a training can start, else with 1, and runs where torch or MMEngine is
broken or missing. Each check yields :class:`Finding` s; all that checks ask of the machine goes
through the functions of facts.py.
"""

import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..utils.arguments import tool_parser
from ..utils.cores import usable_cores
from ..utils.errors import one_line
from ..utils.toolboxes import TOOLBOXES
from .facts import (
    attention_kernel,
    cuda_of_torch,
    gpus_of_driver,
    gpus_of_torch,
    import_error,
    kernel_is_possible,
    lacking_for_triton,
    mmcv_is_compiled,
    shared_memory,
    unsupported_gpus,
)
from .plan import (
    OLDEST_TORCH,
    PIP,
    PYPI_CUDA,
    TORCH_INDEX,
    cuda_of_driver,
    fitting_torchvision,
    index_of,
    numbers,
    version_of,
)

NEWEST_PYTHON = (3, 13)
PYTHON = shlex.quote(sys.executable)
COMPILE_MMCV = f'{PYTHON} -m scopevit install-mmcv'
# Official distributions, and the names under which a maintained fork installs the same modules.
FORKS = {name: f'onedl-{name}' for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation')}
FORKS['mmdet'] = 'onedl-mmdetection'
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
# Distributions by module, where their names differ.
DISTRIBUTIONS = dict(PIL='pillow', sklearn='scikit-learn', yaml='pyyaml')
HAVE_CHECKS = ('torch', 'torchvision', 'pkg_resources', 'mmengine', 'mmcv', 'cv2', 'xtcocotools')
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
        is_usual: Whether it is so after every set-up.
    """

    problem: str
    remedy: str
    stops: bool = True
    is_usual: bool = False


# Checks


def check_python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    if version > NEWEST_PYTHON:
        yield Finding(
            f'Python {_dotted(version)} was not run with this; 3.10 to {_dotted(NEWEST_PYTHON)} were',
            'PYTHON=python3.12 bash tools/setup.sh, or uv venv --python 3.12 --seed, and set up again there',
            stops=False,
        )


def check_pip() -> Iterator[Finding]:
    if version_of('pip') is None:
        yield Finding('pip is not installed here', f'{PYTHON} -m ensurepip', stops=False)


def check_torch() -> Iterator[Finding]:
    version = version_of('torch')
    error = import_error('torch')
    if version is None:
        if error is not None:
            yield Finding('torch is not installed', f'{PIP} install torch torchvision')
    elif error is not None:
        yield Finding(
            f'torch {version} cannot be imported: {one_line(error)}',
            f'{PIP} install --force-reinstall --no-deps torch=={_plain(version)}',
        )
    elif numbers(version) < OLDEST_TORCH:
        remedy = f"{PIP} install --upgrade 'torch>={_dotted(OLDEST_TORCH)}' torchvision"
        yield Finding(f'torch {version} is too old', remedy)


def check_torchvision() -> Iterator[Finding]:
    torch, torchvision = version_of('torch'), version_of('torchvision')
    if torch is None or import_error('torch') is not None:
        return
    fitting = fitting_torchvision(torch)
    index = index_of(torch, cuda_of_torch())
    source = f' --index-url {index}' if index else ''
    remedy = f"{PIP} install --force-reinstall --no-deps{source} 'torchvision{fitting}'"
    if torchvision is None:
        yield Finding('torchvision is not installed', remedy)
        return
    error = import_error('torchvision')
    fits = numbers(torchvision) >= (0, 29) if '>' in fitting else fitting == f'=={_dotted(numbers(torchvision))}.*'
    if error is not None:
        yield Finding(f'torchvision {torchvision} does not work with torch {torch}: {one_line(error)}', remedy)
    elif not fits:
        yield Finding(f'torchvision {torchvision} is not made for torch {torch}', remedy, stops=False)


def check_setuptools() -> Iterator[Finding]:
    if import_error('pkg_resources') is not None:
        version = version_of('setuptools')
        found = f'setuptools {version} has no pkg_resources' if version else 'setuptools is missing'
        yield Finding(f'{found}; MMEngine imports pkg_resources', f"{PIP} install 'setuptools<82'")


def check_mmengine() -> Iterator[Finding]:
    yield from _check_import('MMEngine', 'mmengine', 'mmengine', 'mmengine')


def check_mmcv() -> Iterator[Finding]:
    mmcv, lite = version_of('mmcv'), version_of('mmcv-lite')
    again = f"{PIP} uninstall -y mmcv mmcv-lite && {PIP} install 'mmcv-lite<2.2'"
    if mmcv and lite:
        yield Finding(f'mmcv {mmcv} and mmcv-lite {lite} are both installed and share their files', again, mmcv != lite)
    version = mmcv or lite
    if version and numbers(version) >= (2, 2):
        yield Finding(f'mmcv {version} is refused by mmdet and mmsegmentation', again)
    broken = list(_check_import('mmcv', 'mmcv', 'mmcv' if mmcv else 'mmcv-lite', 'mmcv-lite<2.2'))
    yield from broken
    if broken or import_error('mmcv') is not None:
        return
    if not mmcv_is_compiled():
        yield Finding(
            "mmcv has no compiled operators; torchvision's serve all configs but those with CARAFE, deformable RoI "
            'pooling, rotated boxes or point clouds',
            f'nothing, unless you need those: {COMPILE_MMCV}',
            stops=False,
            is_usual=True,
        )
        return
    error = import_error('mmcv._ext')
    if error is not None:
        found = f"mmcv's operators were compiled for another torch: {one_line(error)}"
        yield Finding(found, f'{again}, or {COMPILE_MMCV}')


def check_toolbox() -> Iterator[Finding]:
    """That there is one; which ones are needed depends on the task."""
    if not _toolboxes():
        yield Finding(
            'no toolbox is installed',
            f"in a checkout: {PIP} install '.[classification]' (or detection, segmentation, pose, all)",
        )
    elif version_of('mmpose') is None and version_of('json_tricks') and version_of('munkres'):
        yield Finding('mmpose is missing beside what it needs', f'{PYTHON} -m scopevit install-mmpose', stops=False)


def check_toolboxes() -> Iterator[Finding]:
    for module in _toolboxes():
        yield from _check_import(module, f'{module}.models', TOOLBOXES[module], TOOLBOXES[module])


def _toolboxes() -> list[str]:
    return [module for module, name in TOOLBOXES.items() if version_of(name) or version_of(f'onedl-{name}')]


def check_forks() -> Iterator[Finding]:
    official = [name for name in FORKS if version_of(name) or (name == 'mmcv' and version_of('mmcv-lite'))]
    forks = [fork for fork in FORKS.values() if version_of(fork)]
    both = [name for name in official if FORKS[name] in forks]
    if both:
        yield Finding(
            f'two distributions of {", ".join(both)} write the same modules',
            f'{PIP} uninstall -y {" ".join([*both, *(FORKS[name] for name in both)])}; then install one of them again',
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
            f'xtcocotools, which mmpose evaluates with, cannot be imported{numpy}: {one_line(error)}',
            f'{PYTHON} -m scopevit install-mmpose',
        )


def check_opencv() -> Iterator[Finding]:
    there = [name for name in OPENCV if version_of(name)]
    if len(there) > 1:
        yield Finding(
            f'{" and ".join(there)} write the same files',
            f'{PIP} uninstall -y {" ".join(there)} && {PIP} install {there[0]}=={version_of(there[0])}',
            stops=False,
        )
    error = import_error('cv2')
    if error is not None and re.search('libGL|libgthread', str(error)):
        yield Finding(
            f'OpenCV lacks a library of the system: {one_line(error)}',
            f'{PIP} uninstall -y {" ".join(there)} && {PIP} install opencv-python-headless'
            f'=={version_of(there[0]) if there else "4.*"}, or apt-get install -y libgl1 libglib2.0-0 as root',
        )
    elif error is not None:
        yield from _check_import('OpenCV', 'cv2', there[0] if there else 'opencv-python', 'opencv-python')


def check_gpu() -> Iterator[Finding]:
    if import_error('torch') is not None:
        return
    driver = gpus_of_driver()
    if driver and not gpus_of_torch():
        cuda, newest = cuda_of_torch(), cuda_of_driver()
        is_old = newest is not None and numbers(newest)[0] < PYPI_CUDA
        index = f' --index-url {TORCH_INDEX}/cu126' if is_old else ''
        remedy = f'{PIP} uninstall -y torch torchvision && {PIP} install{index} torch torchvision'
        why = f'torch {version_of("torch")} is a CPU build'
        if cuda is not None:
            why = f'torch, built for CUDA {cuda}, does not see it'
            update = 'look at CUDA_VISIBLE_DEVICES, or update the driver'
            remedy = f'update the driver, or {remedy}' if is_old and numbers(cuda) > numbers(newest or '') else update
        yield Finding(f'there is a GPU ({driver[0]}), but {why}: trainings would run on the CPU', remedy, stops=False)
    for gpu in unsupported_gpus():
        yield Finding(
            f'torch {version_of("torch")} has no code for {gpu}',
            f'install a torch that has it: a newer one for a newer GPU, one of {TORCH_INDEX}/cu126 for an older one; '
            'CUDA_VISIBLE_DEVICES can hide it',
            stops=len(unsupported_gpus()) == len(gpus_of_torch()),
        )


def check_gpu_kernels() -> Iterator[Finding]:
    lacking = import_error('scopevit.models') is None and gpus_of_torch() and lacking_for_triton()
    if lacking:
        yield Finding(
            f"Triton lacks {lacking}: ScopeViT's kernels for GPUs stay off, and --compile would fail",
            'apt-get install gcc python3-dev, or what your system calls them',
            stops=False,
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
            'install a C++ compiler, then scopevit again; in a checkout: '
            f'{PIP} install --force-reinstall --no-deps --no-build-isolation -e .',
            stops=False,
        )


def check_safe_loading() -> Iterator[Finding]:
    if os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD') in ('1', 'y', 'yes', 'true'):
        yield Finding(
            'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: checkpoints may run code when they are loaded',
            'unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD; scopevit reads checkpoints of MMEngine without it',
            stops=False,
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_pip,
    check_torch,
    check_torchvision,
    check_setuptools,
    check_mmengine,
    check_mmcv,
    check_forks,
    check_opencv,
    check_toolbox,
    check_gpu,
    check_gpu_kernels,
    check_shared_memory,
    check_kernel,
    check_safe_loading,
)
# What stands on the packages above: not asked while something is wrong with those.
CHECKS_ABOVE: tuple[Callable[[], Iterator[Finding]], ...] = (check_toolboxes, check_evaluation)


def _check_import(what: str, module: str, distribution: str, requirement: str) -> Iterator[Finding]:
    """A package that cannot be imported: it, or one that it needs, is missing, or does not fit."""
    error = import_error(module)
    if error is None:
        return
    again = f"{PIP} install --force-reinstall --no-deps '{requirement}'"
    missing = error.name.split('.')[0] if isinstance(error, ModuleNotFoundError) and error.name else None
    if missing == module.split('.')[0]:
        if version_of(distribution):
            yield Finding(f'{what} is installed, but its files are not there', again)
        else:
            yield Finding(f'{what} is not installed', f"{PIP} install '{requirement}'")
    elif missing in HAVE_CHECKS:
        return
    elif missing:
        yield Finding(f'{what} lacks the package {missing}', f'{PIP} install {DISTRIBUTIONS.get(missing, missing)}')
    elif what == 'mmpretrain' and numbers(version_of('transformers') or '0') >= (4, 50):
        versions = f'transformers {version_of("transformers")}'
        yield Finding(f'{what} does not work with {versions}: {one_line(error)}', f"{PIP} install 'transformers<4.50'")
    else:
        yield Finding(f'{what} cannot be imported: {one_line(error)}', again)


def _plain(version: str) -> str:
    """A version without the build that it names: 2.14.1 for 2.14.1+cpu."""
    return version.partition('+')[0]


def _dotted(version: tuple[int, ...]) -> str:
    return '.'.join(map(str, version))


# Report


def describe() -> dict[str, str]:
    """Machine and stack, for a report."""
    facts = {
        'system': f'{platform.system()} {platform.machine()}, {usable_cores()} cores',
        'Python': f'{platform.python_version()} in {sys.prefix}',
    }
    if import_error('torch') is None:
        facts['GPUs'] = ', '.join(gpus_of_torch()) or 'none'
    facts.update((name, version) for name in SHOWN for version in [version_of(name)] if version)
    return facts


def examine() -> list[Finding]:
    """What all checks find, the worst first."""
    findings = [finding for check in CHECKS for finding in check()]
    if not any(finding.stops for finding in findings):
        findings += [finding for check in CHECKS_ABOVE for finding in check()]
    return sorted(findings, key=lambda finding: not finding.stops)


def main() -> None:
    parser = tool_parser(__doc__.splitlines()[0], prog='scopevit doctor')
    parser.add_argument('--findings', action='store_true', help='print what does not fit, and nothing else')
    only_findings = parser.parse_args().findings
    if not only_findings:
        for name, fact in describe().items():
            print(f'{name:24}{fact}')
    findings = examine()
    for finding in findings:
        if not (only_findings and finding.is_usual):
            print(f'\n{"error" if finding.stops else "note"}: {finding.problem}\n  {finding.remedy}')
    stops = any(finding.stops for finding in findings)
    if not only_findings:
        print('\nA training cannot start here: see the errors above.' if stops else '\nA training can start.')
    sys.exit(int(stops))


if __name__ == '__main__':
    main()
