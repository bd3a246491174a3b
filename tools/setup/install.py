"""Install the pinned stack; tools/setup.sh runs this with a Python that fits.

It needs the standard library alone, checks everything that can be checked before the first
download, can be interrupted and run again, and does nothing where everything is in place.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
TASKS = ('classification', 'detection', 'segmentation', 'pose')
STAMP = '.scopevit-setup.json'  # written when all is done
TORCH_SOURCE = '.scopevit-torch-index'  # written before torch is installed
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
REPAIR = 'scopevit_torchvision_repair'
KERNEL = ROOT / 'scopevit' / 'models' / 'layers' / 'attention.cpp'

CHECK = """
import torch, torchvision
from mmcv.ops import nms
assert nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.5]), 0.5)[1].tolist() == [0]
import mmpretrain.models, mmdet.models, mmseg.models, mmpose.models
from scopevit.models import ScopeViT
from scopevit.models.layers.attention import KERNEL
print('torch', torch.__version__, '| torchvision', torchvision.__version__, '| mmcv operators run | '
      'mmpretrain, mmdet, mmseg, mmpose and scopevit import | attention on CPUs:',
      'the compiled kernel' if KERNEL else "PyTorch's, slower, as no kernel could be compiled for this machine")
"""

# Prints the pinned packages of argv that are not installed in that version: name, found, wanted.
CHANGES = """
import importlib.metadata, json, sys
changes = []
for pin in sys.argv[1:]:
    name, wanted = pin.split('==')
    try:
        found = importlib.metadata.version(name).split('+')[0]
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != wanted:
        changes.append((name, found, wanted))
print(json.dumps(changes))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog='tools/setup.sh', description='Set up the environment of this repository.')
    parser.add_argument('--active', action='store_true', help='use the active environment instead of .venv')
    parser.add_argument('--yes', action='store_true', help='with --active: do not ask before changing it')
    args = parser.parse_args()
    conda = os.environ.get('CONDA_PREFIX')
    if args.active and sys.prefix == sys.base_prefix and (conda is None or Path(conda) != Path(sys.prefix)):
        stop('--active: no environment is active; activate one, or leave --active out to use .venv')
    prefix = Path(sys.prefix) if args.active else ROOT / '.venv'
    python = prefix / 'bin' / 'python'

    if is_up_to_date(prefix, python):
        print(f'Set-up: {prefix} is up to date')
        return
    check_machine(needs_venv=not args.active)
    if args.active:
        confirm_changes(python, ask=not args.yes)
    else:
        make_venv(prefix, python)
    install(prefix, python)
    repair_torchvision(python)
    step('Checking what was installed')
    if subprocess.run([python, '-c', CHECK], cwd=ROOT).returncode:
        stop(
            'the installed packages do not work together; the message above says which. Run this again; if it '
            f'stays so, remove {prefix} first'
        )
    write_stamp(prefix)
    how = '' if args.active else f'\nActivate it with: source {os.path.relpath(prefix)}/bin/activate'
    print(f'Set-up: {prefix} is ready{how}')


def step(text: str) -> None:
    print(f'\n==> {text}', flush=True)


def stop(text: str) -> None:
    sys.exit(f'error: {text}')


def run(*command: object, **options: object) -> None:
    """Run a command that shows its own progress; end the set-up if it fails."""
    words = [str(word) for word in command]
    if subprocess.run(words, **options).returncode:
        stop(f'this command failed: {" ".join(words)}\nWhat was done so far is kept; run the set-up again')


def pins(*names: str) -> list:
    """The exact pins of requirements files, as name==version."""
    lines = [line.split('#')[0].strip() for name in names for line in (REQUIREMENTS / f'{name}.txt').open()]
    return [line for line in lines if '==' in line]


def pin(name: str) -> str:
    return next(p for p in pins('runtime', 'no_deps') if p.startswith(f'{name}=='))


def all_pins() -> list:
    return sorted(set(pins('build', 'runtime', *TASKS, 'no_deps', 'export', 'tests', 'lint')))


def fingerprint() -> str:
    """Changes whenever the set-up has something new to do."""
    files = sorted([*REQUIREMENTS.glob('*.txt'), *Path(__file__).parent.glob('*.py'), ROOT / 'setup.py', KERNEL])
    content = b''.join(file.read_bytes() for file in files)
    return hashlib.sha256(content + str(ROOT).encode()).hexdigest()


def read_stamp(prefix: Path) -> dict:
    """What the last complete set-up was for; empty if there was none."""
    try:
        return dict(json.loads((prefix / STAMP).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def write_stamp(prefix: Path) -> None:
    temporary = prefix / f'{STAMP}.tmp'
    temporary.write_text(json.dumps(dict(fingerprint=fingerprint())))
    temporary.replace(prefix / STAMP)


def torch_source(prefix: Path) -> tuple:
    """Where torch comes from, and whether that differs from where the environment has it from.

    It is as asked for now, else as asked for before, else wherever pip looks.
    """
    asked = os.environ.get('TORCH_INDEX_URL')
    marker = prefix / TORCH_SOURCE
    before = marker.read_text() if marker.is_file() else None
    return asked or before or None, bool(asked) and asked != before


def is_up_to_date(prefix: Path, python: Path) -> bool:
    _, changed = torch_source(prefix)
    if changed or read_stamp(prefix).get('fingerprint') != fingerprint():
        return False
    return runs_this_version(python) and not changes(python)


def runs_this_version(python: Path) -> bool:
    """Whether an environment's Python runs, has pip, and is of the version that runs this."""
    script = 'import pip, sys; print(*sys.version_info[:2])'
    try:
        result = subprocess.run([python, '-c', script], capture_output=True, text=True)
    except OSError:  # for example a link to a Python that is gone
        return False
    return result.stdout.split() == [str(number) for number in sys.version_info[:2]]


def changes(python: Path) -> list:
    """Which pinned packages an environment lacks or has in another version."""
    output = subprocess.run([python, '-c', CHANGES, *all_pins()], capture_output=True, text=True, check=True).stdout
    return json.loads(output)


def confirm_changes(python: Path, ask: bool) -> None:
    print(f'The active environment {sys.prefix} would change:')
    for name, found, wanted in changes(python):
        print(f'  {name}: {f"{found} -> {wanted}" if found else f"install {wanted}"}')
    print('  scopevit: an editable install of this checkout')
    if ask and not sys.stdin.isatty():
        stop('nothing was changed: there is no terminal to ask on; say --yes if the list above is as you want it')
    if ask and input('Go on? [y/N] ').strip().lower() not in ('y', 'yes'):
        stop('nothing was changed')


def check_machine(needs_venv: bool) -> None:
    """Find everything that is missing on the machine before anything is downloaded."""
    version = f'python3.{sys.version_info.minor}'
    missing = []
    if needs_venv and not (importlib.util.find_spec('venv') and importlib.util.find_spec('ensurepip')):
        missing.append(('the venv module', f'{version}-venv'))
    has_mmcv = any(wheel_folder('*').parent.glob(wheel_folder('*').name + '/*.whl'))
    if not has_mmcv and not os.path.isfile(os.path.join(sysconfig.get_path('include'), 'Python.h')):
        missing.append(('Python.h', f'{version}-dev'))
    if not shutil.which(os.environ.get('CXX', 'c++')):  # for the attention kernel, too
        missing.append(('a C++ compiler', 'build-essential'))
    for what, library, package in (
        ('libGL', 'libGL.so.1', 'libgl1'),
        ('GLib', 'libgthread-2.0.so.0', 'libglib2.0-0'),
    ):
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append((what, package))
    if missing:
        stop(
            f'this machine lacks {", ".join(what for what, _ in missing)}. Install and run this again:\n'
            f'  sudo apt-get install -y {" ".join(package for _, package in missing)}'
        )


def make_venv(prefix: Path, python: Path) -> None:
    if not runs_this_version(python):
        step(f'Making {prefix}')
        run(sys.executable, '-m', 'venv', '--clear', prefix)


def pip(python: Path, *words: object) -> None:
    run(python, '-m', 'pip', 'install', '--disable-pip-version-check', *words)


def install(prefix: Path, python: Path) -> None:
    index, changed = torch_source(prefix)
    source = ['--index-url', index] if index else []
    # The same version from another place is another build, which pip would not notice.
    again = ['--force-reinstall'] if changed else []
    step('Installing build tools')
    pip(python, '--upgrade', 'pip>=23.1', '-r', REQUIREMENTS / 'build.txt')
    step(f'Installing {pin("torch")} (on CPU machines about 200 MB; CUDA builds are several GB)')
    refuse_cuda_without_nvcc(python, [*source, *again])
    (prefix / TORCH_SOURCE).write_text(index or '')
    if changed:
        pip(python, '--no-deps', *again, *source, pin('torch'))
    pip(python, *source, pin('torch'))
    pip(python, pin('numpy'))  # before mmcv is built, whose build looks at it
    wheel = mmcv_wheel(python)
    step('Installing mmcv, the toolboxes and what they need')
    # Always: an mmcv of the same version may have been built for another torch.
    pip(python, '--no-deps', '--force-reinstall', wheel)
    files = [word for name in (*TASKS, 'export', 'tests', 'lint') for word in ('-r', REQUIREMENTS / f'{name}.txt')]
    pip(python, *files)
    pip(python, '--no-deps', *again, *source, pin('torchvision'))
    print('(pip may say that mmpose requires chumpy: it never imports it)')
    pip(python, '--no-deps', pin('mmpose'))
    pip(python, '--no-deps', '--no-build-isolation', '-e', ROOT)


def refuse_cuda_without_nvcc(python: Path, source: list) -> None:
    """Stop before several GB of CUDA packages come to a machine that cannot build operators for them."""
    if shutil.which('nvcc') or os.environ.get('CUDA_HOME'):
        return
    with tempfile.NamedTemporaryFile(suffix='.json') as report:
        command = [python, '-m', 'pip', 'install', '--dry-run', '--quiet', '--report', report.name, *source]
        if subprocess.run([*command, pin('torch')], stdout=subprocess.DEVNULL).returncode:
            return  # the real installation will say what is wrong
        names = [item['metadata']['name'].lower() for item in json.loads(Path(report.name).read_text())['install']]
    if any(name.startswith(('nvidia-', 'cuda-')) for name in names):
        stop(no_nvcc())


def no_nvcc() -> str:
    return (
        "this torch is a CUDA build, but nvcc, which compiles mmcv's CUDA operators, is missing.\n"
        '  With a GPU: install the CUDA toolkit of the same version and run this again.\n'
        f'  Without one: TORCH_INDEX_URL={CPU_INDEX} bash tools/setup.sh'
    )


def wheel_folder(torch_build: str) -> Path:
    """Where mmcv's wheel is kept: the name says what it was built for."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    tag = f'cp{sys.version_info.major}{sys.version_info.minor}'
    system = f'{platform.system()}_{platform.machine()}'.lower()
    version = pin('torch').split('==')[1] + '*' if torch_build == '*' else torch_build
    return cache / 'scopevit' / 'wheels' / f'{pin("mmcv").replace("==", "-")}_{tag}_torch-{version}_{system}'


def torch_build(python: Path) -> str:
    """Version of the installed torch, for a CUDA build with CUDA version and GPU architectures."""
    script = (
        'import json, torch; gpus = range(torch.cuda.device_count()); print(json.dumps([torch.__version__, '
        'torch.version.cuda, sorted({"%d.%d" % torch.cuda.get_device_capability(i) for i in gpus})]))'
    )
    output = subprocess.run([python, '-c', script], stdout=subprocess.PIPE, text=True, check=True).stdout
    version, cuda, found = json.loads(output)
    if cuda is None:
        return version if '+' in version else f'{version}+cpu'
    if not shutil.which('nvcc') and not os.environ.get('CUDA_HOME'):
        stop(no_nvcc())
    architectures = os.environ.setdefault('TORCH_CUDA_ARCH_LIST', ';'.join(found))
    if not architectures:
        stop('this torch is a CUDA build, but no GPU is visible: set TORCH_CUDA_ARCH_LIST, for example to "8.0;9.0"')
    os.environ['FORCE_CUDA'] = '1'
    print(f'Building CUDA operators: CUDA {cuda}, architectures {architectures}')
    return f'{version.split("+")[0]}+cuda{cuda}-sm{re.sub("[; ]+", "-", architectures)}'


def mmcv_wheel(python: Path) -> Path:
    """The wheel of mmcv with its operators; built once, then kept in the user's cache."""
    folder = wheel_folder(torch_build(python))
    kept = list(folder.glob('mmcv-*.whl'))
    if kept:
        print(f'mmcv: using {kept[0]}')
        return kept[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    jobs = os.environ.get('MAX_JOBS') or str(os.cpu_count())
    step(f'Building {pin("mmcv")} with {jobs} compiler processes (once; 12 to 25 minutes on two cores)')
    log = folder.parent / f'{folder.name}.log'
    scratch = tempfile.mkdtemp(dir=folder.parent, prefix='building-')
    try:
        # pip's own cache does not know for which torch a wheel was built.
        command = [str(python), '-m', 'pip', 'wheel', '-v', '--no-cache-dir', '--no-build-isolation', '--no-deps']
        if not follow_build(
            [*command, '-w', scratch, pin('mmcv')], log, dict(os.environ, MMCV_WITH_OPS='1', MAX_JOBS=jobs)
        ):
            stop(f"mmcv did not build; the compiler's messages are in {log}")
        try:
            os.rename(scratch, folder)
        except OSError:
            if not list(folder.glob('mmcv-*.whl')):  # another set-up may have been faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    folder.chmod(0o755)
    return next(folder.glob('mmcv-*.whl'))


def follow_build(command: list, log: Path, environment: dict) -> bool:
    """Run a build into a log file, showing how many files are compiled."""
    counter = re.compile(r'\[(\d+)/(\d+)\]')
    shown = ''
    with log.open('w') as file:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
        )
        for line in process.stdout:
            file.write(line)
            found = counter.match(line.strip())
            if found and found.group() != shown:
                shown = found.group()
                print(f'\r  compiled {found.group(1)} of {found.group(2)} files', end='', flush=True)
    print()
    return process.wait() == 0


def repair_torchvision(python: Path) -> None:
    """Let torchvision import where its extension cannot load; see torchvision_repair.py."""
    result = subprocess.run([python, '-c', 'import torchvision'], capture_output=True, text=True)
    if result.returncode == 0:
        return
    if 'torchvision::nms does not exist' not in result.stderr:
        stop(f'torchvision does not import:\n{result.stderr}')
    site = subprocess.run(
        [python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], capture_output=True, text=True
    ).stdout.strip()
    shutil.copy(Path(__file__).with_name('torchvision_repair.py'), Path(site) / f'{REPAIR}.py')
    (Path(site) / f'{REPAIR}.pth').write_text(f'import {REPAIR}\n')
    print('torchvision: its extension needs CUDA and cannot load; declared its operators instead')


if __name__ == '__main__':
    main()
