"""The set-up: what it finds missing, what it keeps, and what it leaves alone."""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers import KERNEL_IS_POSSIBLE, ROOT, tool

FOLDER = ROOT / 'tools' / 'setup'


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install():
    return load('install')


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'scopevit' / 'wheels'


def test_this_environment_is_up_to_date(install):
    assert install.is_up_to_date(Path(sys.prefix), Path(sys.executable))


def test_missing_pieces_of_the_machine_are_named_in_one_apt_line(install, empty_cache, monkeypatch):
    def cannot_load(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, 'CDLL', cannot_load)
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: '/nowhere')
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit) as error:
        install.check_machine(needs_venv=True)
    version = f'python3.{sys.version_info.minor}'
    assert 'the venv module, Python.h, a C++ compiler, libGL, GLib' in str(error.value)
    assert str(error.value).endswith(
        f'sudo apt-get install -y {version}-venv {version}-dev build-essential libgl1 libglib2.0-0'
    )
    # With mmcv's wheel in the cache only scopevit's kernel needs to be compiled.
    folder = install.wheel_folder('2.13.0+cpu')
    folder.mkdir(parents=True)
    (folder / 'mmcv-2.1.0-x.whl').touch()
    with pytest.raises(SystemExit) as error:
        install.check_machine(needs_venv=False)
    assert 'lacks a C++ compiler, libGL, GLib.' in str(error.value)


def test_a_complete_machine_passes(install):
    install.check_machine(needs_venv=True)


def fake_python(path, version):
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Python {version}"; else exit 1; fi\n')
    path.chmod(0o755)


def test_wrong_python_is_named(tmp_path):
    fake_python(tmp_path / 'python3', '3.12.1')
    for command in ('bash', 'dirname'):
        (tmp_path / command).symlink_to(shutil.which(command))
    (tmp_path / 'cat').symlink_to(shutil.which('cat'))
    env = dict(PATH=str(tmp_path))
    result = subprocess.run(['bash', ROOT / 'tools/setup.sh'], capture_output=True, text=True, env=env)
    assert result.returncode == 1
    assert 'Python 3.10 or 3.11 is needed, but python3 is: Python 3.12.1' in result.stderr
    assert 'apt-get install -y python3.11 python3.11-venv python3.11-dev' in result.stderr
    env['PYTHON'] = '/no/such/python'
    result = subprocess.run(['bash', ROOT / 'tools/setup.sh'], capture_output=True, text=True, env=env)
    assert '/no/such/python is: ' in result.stderr


def answer(monkeypatch, install, output):
    """Let every command that the set-up runs print this."""
    done = subprocess.CompletedProcess([], 0, stdout=output, stderr='')
    monkeypatch.setattr(install.subprocess, 'run', lambda *args, **options: done)


def test_wheel_name_says_what_it_was_built_for(install, empty_cache, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: f'/usr/bin/{name}')
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    answer(monkeypatch, install, json.dumps(['2.13.0+cpu', None, []]))
    cpu = install.wheel_folder(install.torch_build(Path('python'))).name
    tag = f'cp3{sys.version_info.minor}'
    assert cpu.startswith(f'mmcv-2.1.0_{tag}_torch-2.13.0+cpu_linux_')
    answer(monkeypatch, install, json.dumps(['2.13.0+cu130', '13.0', ['8.0', '9.0']]))
    cuda = install.wheel_folder(install.torch_build(Path('python'))).name
    assert cuda.startswith(f'mmcv-2.1.0_{tag}_torch-2.13.0+cuda13.0-sm8.0-9.0_linux_')


def test_cuda_torch_without_nvcc_stops(install, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.delenv('CUDA_HOME', raising=False)
    answer(monkeypatch, install, json.dumps(['2.13.0', '13.0', ['9.0']]))
    with pytest.raises(SystemExit, match='nvcc.*is missing') as error:
        install.torch_build(Path('python'))
    assert 'TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu' in str(error.value)


@pytest.mark.parametrize('cuda', [True, False])
def test_cuda_packages_are_found_before_they_are_downloaded(cuda, install, monkeypatch):
    names = ['torch', 'sympy'] + (['nvidia-cublas'] if cuda else [])
    report = json.dumps(dict(install=[dict(metadata=dict(name=name)) for name in names]))

    def run(command, **options):
        assert '--dry-run' in command
        Path(command[command.index('--report') + 1]).write_text(report)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(install.subprocess, 'run', run)
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.delenv('CUDA_HOME', raising=False)
    if cuda:
        with pytest.raises(SystemExit, match='nvcc'):
            install.refuse_cuda_without_nvcc(Path('python'), [])
    else:
        install.refuse_cuda_without_nvcc(Path('python'), [])


def test_wheel_is_built_once_and_an_interrupted_build_leaves_nothing(install, empty_cache, monkeypatch):
    monkeypatch.setattr(install, 'torch_build', lambda python: '2.13.0+cpu')
    builds = []

    def build(command, log, environment):
        scratch = Path(command[command.index('-w') + 1])
        builds.append(scratch)
        if len(builds) == 1:
            (scratch / 'half-a-wheel').touch()
            raise KeyboardInterrupt
        assert environment['MMCV_WITH_OPS'] == '1'
        (scratch / 'mmcv-2.1.0-cp3-linux.whl').write_text('wheel')
        return True

    monkeypatch.setattr(install, 'follow_build', build)
    with pytest.raises(KeyboardInterrupt):
        install.mmcv_wheel(Path('python'))
    assert list(empty_cache.iterdir()) == []
    wheel = install.mmcv_wheel(Path('python'))
    assert wheel.read_text() == 'wheel'
    assert install.mmcv_wheel(Path('python')) == wheel
    assert len(builds) == 2
    assert [path.name for path in empty_cache.iterdir()] == [wheel.parent.name]


def test_failed_build_names_its_log(install, empty_cache, monkeypatch, capfd):
    monkeypatch.setattr(install, 'torch_build', lambda python: '2.13.0+cpu')
    script = 'print("[1/3] first"); print("[2/3] second"); raise SystemExit("compiler error")'
    follow = install.follow_build
    monkeypatch.setattr(install, 'follow_build', lambda command, *rest: follow([sys.executable, '-c', script], *rest))
    with pytest.raises(SystemExit, match=r'did not build; .* are in .*\.log') as error:
        install.mmcv_wheel(Path('python'))
    log = Path(str(error.value).split(' are in ')[1])
    assert 'compiler error' in log.read_text()
    assert 'compiled 2 of 3 files' in capfd.readouterr().out


def test_active_environment_is_listed_before_it_changes(install, tmp_path, capsys, monkeypatch):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'env'], check=True)
    python = tmp_path / 'env' / 'bin' / 'python'
    wanted = dict(pin.split('==') for pin in install.all_pins())
    assert {name: version for name, _, version in install.changes(python)} == wanted
    monkeypatch.setattr(sys, 'stdin', open(os.devnull))  # noqa: SIM115
    with pytest.raises(SystemExit, match='nothing was changed'):
        install.confirm_changes(python, ask=True)
    assert f'mmengine: install {wanted["mmengine"]}' in capsys.readouterr().out
    assert install.changes(Path(sys.executable)) == []


def test_other_source_of_torch_is_not_up_to_date(install, tmp_path, monkeypatch):
    monkeypatch.setattr(install, 'changes', lambda python: [])
    monkeypatch.delenv('TORCH_INDEX_URL', raising=False)
    python = Path(sys.executable)
    assert not install.is_up_to_date(tmp_path, python)
    install.write_stamp(tmp_path)
    (tmp_path / install.TORCH_SOURCE).write_text('https://one')
    assert install.is_up_to_date(tmp_path, python)  # nothing asked for: as it was
    assert install.torch_source(tmp_path) == ('https://one', False)
    monkeypatch.setenv('TORCH_INDEX_URL', 'https://one')
    assert install.is_up_to_date(tmp_path, python)
    monkeypatch.setenv('TORCH_INDEX_URL', 'https://two')
    assert not install.is_up_to_date(tmp_path, python)


@pytest.mark.parametrize('asked', ['https://cpu', None])
def test_torch_of_another_source_is_replaced_with_mmcv(asked, install, tmp_path, monkeypatch):
    """Also after a set-up that stopped half-way: no stamp, but a torch."""
    if asked:
        monkeypatch.setenv('TORCH_INDEX_URL', asked)
    else:
        monkeypatch.delenv('TORCH_INDEX_URL', raising=False)
    commands = []
    monkeypatch.setattr(install, 'pip', lambda python, *words: commands.append([str(word) for word in words]))
    monkeypatch.setattr(install, 'mmcv_wheel', lambda python: 'mmcv.whl')
    monkeypatch.setattr(install, 'refuse_cuda_without_nvcc', lambda python, source: commands.append(source))
    install.install(tmp_path, Path('python'))
    checked = commands[1]
    assert '--no-deps' not in checked  # the check has to see what torch needs
    torch = next(command for command in commands[2:] if install.pin('torch') in command)
    assert ('--force-reinstall' in torch) == ('--force-reinstall' in checked) == bool(asked)
    assert ['--no-deps', '--force-reinstall', 'mmcv.whl'] in commands
    assert (tmp_path / install.TORCH_SOURCE).read_text() == (asked or '')
    commands.clear()
    install.install(tmp_path, Path('python'))  # once more: now it is from there
    assert '--force-reinstall' not in commands[1]


@pytest.mark.parametrize('stamp', ['', '"half', '3'])
def test_damaged_environment_is_set_up_again(stamp, install, tmp_path):
    (tmp_path / install.STAMP).write_text(stamp)
    assert not install.is_up_to_date(tmp_path, Path(sys.executable))
    gone = tmp_path / 'python'
    gone.symlink_to('/no/such/python3.11')
    assert not install.runs_this_version(gone)
    install.make_venv(tmp_path / 'env', tmp_path / 'env' / 'bin' / 'python')
    assert install.runs_this_version(tmp_path / 'env' / 'bin' / 'python')


def test_active_needs_an_active_environment(install, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['setup.sh', '--active'])
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    monkeypatch.delenv('CONDA_PREFIX', raising=False)
    with pytest.raises(SystemExit, match='no environment is active'):
        install.main()


REPAIRED = """
import sys
sys.path.insert(0, {folder!r})
import torchvision_repair
assert 'torch' not in sys.modules, 'starting Python must not import torch'
torchvision_repair._extension_loads = lambda folder: {loads}
import torchvision.ops
assert (torchvision_repair._library is None) == {loads}
assert not any(type(finder).__name__ == '_BeforeTorchvision' for finder in sys.meta_path[:1])
"""


@pytest.mark.parametrize('loads', [False, True])
def test_torchvision_repair_steps_in_only_where_the_extension_fails(loads, tmp_path):
    """With a stand-in torchvision, isolated from the environment's own repair."""
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text('')
    # As torchvision does at import: fails unless someone declared the operator.
    ops = '' if loads else 'import torch\ntorch.library.register_fake("torchvision::nms")(lambda a, b, c: a)\n'
    (package / 'ops.py').write_text(ops)
    script = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n' + REPAIRED.format(folder=str(FOLDER), loads=loads)
    # Without site's .pth files, torch itself is found by path.
    script = f'import sys; sys.path.append({sysconfig.get_path("purelib")!r})\n{script}'
    result = subprocess.run([sys.executable, '-S', '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_starting_python_does_not_import_torch():
    script = 'import sys; assert "torch" not in sys.modules and "torchvision" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', script]).returncode == 0


def test_scripts_choose_ports_and_machines():
    """What dist_train.sh would start, shown by an echo in Python's place."""

    def command(**env):
        return tool('dist_train.sh', 'config.py', 4, '--amp', env=dict(env, PYTHON='echo')).stdout

    one = command()
    assert '--standalone --nproc-per-node=4' in one
    assert one.strip().endswith('tools/train.py config.py --amp --launcher pytorch')
    several = command(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    assert '--nnodes=2 --node-rank=1 --master-addr=10.0.0.1 --master-port=1234' in several
    assert '--master-port=1234' in command(PORT='1234')


def test_quickstart_names_unknown_arguments():
    result = tool('quickstart.sh', '--sead', 1, check=False)
    assert result.returncode == 2
    assert 'unknown argument --sead' in result.stderr


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--task', 'everything'], '--task must be classification, detection, instance, segmentation, pose or all'),
        (['--task'], '--task needs a value'),
        (['--task', 'pose', '--pretrained', 'missing.pth'], '--pretrained missing.pth does not exist'),
    ],
)
def test_quickstart_refuses_before_it_sets_up(words, says):
    result = tool('quickstart.sh', *words, check=False)
    assert result.returncode == 2
    assert says in result.stderr
    assert result.stdout == ''


@pytest.fixture
def source(tmp_path):
    """What a wheel is built from, in a folder of its own."""
    source = tmp_path / 'source'
    for name in ('scopevit', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '*.so'))
    for name in ('setup.py', 'README.md', 'LICENSE', 'model-index.yml', 'pyproject.toml'):
        shutil.copy(ROOT / name, source / name)
    return source


def build_wheel(source, **environment):
    """Build a wheel and unpack it; returns the folder."""
    folder = source.parent
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, source]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    wheel = next(folder.glob('scopevit-*.whl'))
    subprocess.run([sys.executable, '-m', 'zipfile', '-e', wheel, folder / 'site'], check=True)
    return folder / 'site'


def which_attention(site):
    """Whether an unpacked wheel has the attention kernel, and that it computes either way."""
    script = (
        'import torch, scopevit.models.layers.attention as module; q = torch.ones(1, 1, 4, 16); '
        'assert torch.equal(module.attention(q, q, q), q); print(module.KERNEL is not None, module.__file__)'
    )
    command, env = [sys.executable, '-c', script], dict(os.environ, PYTHONPATH=str(site))
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=site)
    has_kernel, file = result.stdout.split()
    assert file.startswith(str(site))
    return has_kernel == 'True'


@pytest.mark.slow
def test_wheel_ships_kernel_configs_tools_and_model_index(source, tmp_path):
    site = build_wheel(source)
    assert which_attention(site) == KERNEL_IS_POSSIBLE
    mim = site / 'scopevit' / '.mim'
    for folder in ('configs', 'tools'):
        shipped = {p.relative_to(mim) for p in (mim / folder).rglob('*') if p.is_file()}
        there = {p.relative_to(source) for p in (source / folder).rglob('*') if p.is_file()}
        of_a_checkout = {
            p for p in there if p.name in ('setup.sh', 'quickstart.sh', 'run_tests.sh') or 'setup' in p.parts
        }
        assert shipped == there - of_a_checkout
    assert (mim / 'model-index.yml').is_file()
    # The shipped tools run from there.
    env = dict(os.environ, PYTHONPATH=str(site))
    command = [sys.executable, mim / 'tools' / 'train.py', '--help']
    assert 'usage: train.py' in subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path).stdout


@pytest.mark.slow
def test_without_a_compiler_scopevit_installs_and_uses_pytorchs_attention(source):
    assert not which_attention(build_wheel(source, CC='false', CXX='false'))


def test_a_change_of_the_kernel_is_compiled_by_the_next_set_up(install, tmp_path, monkeypatch):
    before = install.fingerprint()
    changed = tmp_path / 'attention.cpp'
    changed.write_text(install.KERNEL.read_text() + '//')
    monkeypatch.setattr(install, 'KERNEL', changed)
    assert install.fingerprint() != before
