"""The set-up: what it installs, keeps and says; and what is shipped in wheels."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path

import pytest

from helpers import KERNEL_IS_POSSIBLE, ROOT, tool

TAKES_ANYTHING = ('run_tests.sh',)  # hands its arguments on to pytest
SCRIPTS = sorted(path.name for path in (ROOT / 'tools').glob('*.sh') if path.name not in ('env.sh', 'usage.sh'))

READ_BY_SET_UP = (
    *('setup.py', 'scopevit/stack/mmpose.py'),
    *('scopevit/models/ops/mmcv_finder.py', 'scopevit/models/ops/attention.cpp'),
)
# Stands for a Python and its environments: writes down what it is called with. FAKE_TORCH is the torch
# that is installed, FAKE_MMCV set if a compiled mmcv is, FAKE_FAILS a word of the call that fails.
FAKE_PYTHON = """#!/bin/bash
echo "$*" >> "$FAKE_CALLS"
if [ -n "$FAKE_FAILS" ] && [[ "$*" = *"$FAKE_FAILS"* ]]; then echo "ERROR: No space left on device"; exit 1; fi
case "$*" in
    --version) echo Python 3.12.9 ;;
    *'pip install'*' -c '*)
        while [ "$1" != -c ]; do shift; done
        cp "$2" "$FAKE_CALLS.constraints"
        cat "$(dirname "$2")"/*b.txt "$(dirname "$2")"/detection.txt > "$FAKE_CALLS.lists" ;;
    *'-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"m.version('torch')"*) [ -n "$FAKE_TORCH" ] && echo "torch==$FAKE_TORCH" ;;
    *"m.version('mmcv')"*) [ -n "$FAKE_MMCV" ] ;;
    *"m.version('"*) exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of what the set-up reads, and a Python that only writes down what it is to do."""
    checkout = tmp_path / 'checkout'
    for name in ('tools', 'requirements'):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns('fashion_mnist_subset'))
    for name in READ_BY_SET_UP:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    python = tmp_path / 'python'
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    for name in ('TORCH_INDEX_URL', 'VIRTUAL_ENV', 'CONDA_PREFIX', 'FAKE_FAILS', 'FAKE_TORCH', 'FAKE_MMCV'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PYTHON', str(python))
    monkeypatch.setenv('FAKE_CALLS', str(tmp_path / 'calls'))
    return checkout


def set_up(checkout, *words, **environment):
    """Run the set-up; returns the finished process and what Python was called with."""
    calls = Path(os.environ['FAKE_CALLS'])
    calls.write_text('')
    command = ['bash', checkout / 'tools/setup.sh', *words]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    return result, calls.read_text().splitlines()


def constraints():
    return Path(os.environ['FAKE_CALLS'] + '.constraints').read_text().split('\n')


def pip_calls(calls):
    return [call for call in calls if call.startswith('-m pip install')]


def test_set_up_installs_the_tested_versions_and_then_has_nothing_to_do(checkout):
    result, calls = set_up(checkout)
    assert result.returncode == 0, result.stderr
    torch, toolboxes, scopevit = pip_calls(calls)
    tested = (checkout / 'requirements/constraints.txt').read_text().split('\n')
    assert torch.split()[-2:] == [line for line in tested if line.startswith('torch')]
    assert toolboxes.count(' -r ') == len(list((checkout / 'requirements').glob('*.txt'))) - 1
    assert scopevit.endswith('--no-deps --no-build-isolation -e .')
    assert sorted(constraints()) == sorted(tested)
    assert 'scopevit/stack/mmpose.py' in calls
    assert '-m scopevit doctor' in calls
    assert 'Set-up: .venv is ready after' in result.stdout
    assert len(result.stdout.splitlines()) < 15
    again, calls = set_up(checkout)
    assert again.stdout == 'Set-up: .venv is up to date\n'
    assert pip_calls(calls) == []


@pytest.mark.parametrize('name', ['requirements/pose.txt', 'setup.py', 'scopevit/models/ops/attention.cpp'])
def test_what_has_changed_is_installed(name, checkout):
    set_up(checkout)
    with (checkout / name).open('a') as file:
        file.write('\n#')
    assert pip_calls(set_up(checkout)[1])


def test_a_torch_that_is_there_stays_and_torchvision_follows_it(checkout):
    result, calls = set_up(checkout, FAKE_TORCH='2.13.0+cu126')
    assert result.returncode == 0, result.stderr
    assert [line for line in constraints() if line.startswith('torch')] == [
        'torch==2.13.0+cu126',
        'torchvision==0.28.*',
    ]
    torch, *_ = pip_calls(calls)
    index = 'https://download.pytorch.org/whl/cu126'
    assert torch.endswith(f'--index-url {index} --no-deps torch==2.13.0+cu126 torchvision==0.28.*')
    (checkout / '.venv/.scopevit-setup').unlink()
    torch, *_ = pip_calls(set_up(checkout, FAKE_TORCH='2.13.0')[1])
    assert torch.endswith('torch==2.13.0 torchvision==0.28.*')
    assert '--index-url' not in torch


@pytest.mark.parametrize('torch', ['1.13.1', '2.5.1+cu121'])
def test_a_torch_that_is_too_old_is_named_before_anything_changes(torch, checkout):
    result, calls = set_up(checkout, FAKE_TORCH=torch)
    assert result.returncode == 1
    assert f'torch=={torch}, and scopevit takes PyTorch 2.6 or newer' in result.stderr
    assert 'pip install --upgrade torch torchvision' in result.stderr
    assert not pip_calls(calls)


def test_a_compiled_mmcv_stays(checkout):
    set_up(checkout, FAKE_MMCV='1')
    lists = Path(os.environ['FAKE_CALLS'] + '.lists').read_text()
    assert 'mmdet' in lists
    assert '\nmmcv-lite' not in lists
    (checkout / '.venv/.scopevit-setup').unlink()
    set_up(checkout)
    assert '\nmmcv-lite' in Path(os.environ['FAKE_CALLS'] + '.lists').read_text()


def test_the_python_of_venv_is_kept(checkout, monkeypatch):
    """Whatever the system's python3 is: tools/run_tests.sh calls the set-up without PYTHON."""
    set_up(checkout)
    monkeypatch.delenv('PYTHON')
    again, calls = set_up(checkout)
    assert 'up to date' in again.stdout
    with (checkout / 'setup.py').open('a') as file:
        file.write('#')
    _, calls = set_up(checkout)
    assert not any('-m venv' in call for call in calls)


def test_torch_comes_from_where_one_asks_for_it(checkout):
    """Without its dependencies, of which such an index has few versions; they come with the toolboxes."""
    _, calls = set_up(checkout, TORCH_INDEX_URL='https://cpu')
    torch, *others = pip_calls(calls)
    assert '--index-url https://cpu --no-deps torch==' in torch
    assert not any('https://cpu' in call for call in others)


@pytest.mark.parametrize(
    ('fails', 'step'),
    [('torchvision==', 'Installing torch'), ('openmmlab.txt', 'toolboxes'), ('scopevit doctor', 'Checking')],
)
def test_a_step_that_fails_is_named_with_its_log_and_the_doctor(fails, step, checkout):
    result, _ = set_up(checkout, FAKE_FAILS=fails)
    assert result.returncode == 1
    error = result.stderr
    assert f'{step}' in error
    assert 'ERROR: No space left on device' in error
    assert '.venv/setup.log' in error
    assert 'scopevit doctor' in error
    assert 'ERROR' in (checkout / '.venv/setup.log').read_text()
    assert pip_calls(set_up(checkout)[1])  # it is not taken for done


def test_no_python_that_fits(checkout, tmp_path):
    result, _ = set_up(checkout, PYTHON='/no/such python')
    assert result.returncode == 1
    assert '/no/such python is: ' in result.stderr
    for words in ('Python 3.10 to 3.14', 'python3-venv', 'uv python install 3.12', 'pyenv install 3.12'):
        assert words in result.stderr


@pytest.fixture
def active(tmp_path):
    """An environment that is active."""
    python = tmp_path / 'active/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return dict(VIRTUAL_ENV=str(tmp_path / 'active'))


def test_active_environment_is_asked_about_before_it_changes(checkout, active):
    result, calls = set_up(checkout, '--active', **active)
    assert result.returncode == 1
    assert 'nothing was changed: there is no terminal to ask on; say --yes' in result.stderr
    assert all('--dry-run' in call for call in pip_calls(calls))
    assert [path.name for path in Path(active['VIRTUAL_ENV']).iterdir()] == ['bin']
    result, _ = set_up(checkout, '--active', FAKE_FAILS='--dry-run', **active)
    assert 'pip cannot tell what would change: ERROR: No space left' in result.stderr
    result, calls = set_up(checkout, '--active', '--yes', **active)
    assert result.returncode == 0, result.stderr
    assert not any('-m venv' in call for call in calls)
    assert len([call for call in pip_calls(calls) if '--dry-run' not in call]) == 3


def test_active_needs_an_active_environment(checkout):
    result, calls = set_up(checkout, '--active')
    assert result.returncode == 1
    assert 'no environment is active' in result.stderr


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_has_help(script):
    for folder, name in ((ROOT / 'tools', script), (ROOT.parent, f'{ROOT.name}/tools/{script}')):
        result = subprocess.run(['bash', name, '--help'], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0
        assert f'bash tools/{script}' in result.stdout
        assert result.stderr == ''


def test_help_is_asked_for_in_any_place():
    assert 'NPROC' in tool('dist_train.sh', 'config.py', '--help').stdout
    command = tool('dist_train.sh', 'config.py', 2, '--help', env=dict(PYTHON='echo')).stdout
    assert command.strip().endswith('config.py --help --launcher pytorch')  # train.py's


@pytest.mark.parametrize('script', [script for script in SCRIPTS if script not in TAKES_ANYTHING])
def test_wrong_arguments_show_the_usage_and_what_is_wrong(script):
    result = tool(script, '--sead', check=False)
    assert result.returncode == 2
    assert f'bash tools/{script}' in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith('error: ')


COMPILING_PYTHON = """#!/bin/bash
case "$*" in
    -c*torch.cuda*) [ -n "$FAKE_TORCH" ] && echo "cp312 $FAKE_TORCH none " ;;
    *'pip download'*)
        while [ "$1" != -d ]; do shift; done
        mkdir -p mmcv-2.1.0 && echo "flags = '-std=c++17'" > mmcv-2.1.0/setup.py
        tar -czf "$2/mmcv-2.1.0.tar.gz" mmcv-2.1.0 && rm -r mmcv-2.1.0 ;;
    *'pip wheel'*)
        while [ "$1" != -w ]; do shift; done
        mkdir -p "$2" && cp "$3/setup.py" "$2/mmcv-2.1.0-fake.whl" && echo "$CFLAGS" >> "$2/mmcv-2.1.0-fake.whl" ;;
    *'pip install'*) echo "$*" ;;
esac
"""


@pytest.mark.parametrize(('torch', 'standard'), [('2.13.0+cpu', 'c++17'), ('2.14.1', 'c++20')])
def test_mmcv_is_compiled_as_its_torch_asks_and_kept(torch, standard, tmp_path):
    python = tmp_path / 'python'
    python.write_text(COMPILING_PYTHON)
    python.chmod(0o755)
    env = dict(FAKE_TORCH=torch, XDG_CACHE_HOME=str(tmp_path / 'cache'), TORCH_CUDA_ARCH_LIST='')
    first = tool('mmcv_operators.sh', python, env=env)
    (wheel,) = (tmp_path / 'cache/scopevit/wheels').glob(f'mmcv-2.1.0_cp312_torch-{torch}_*/mmcv-*.whl')
    assert f'-std={standard}' in wheel.read_text()
    assert '-g0' in wheel.read_text()
    assert f'--no-deps --force-reinstall {wheel}' in first.stdout
    wheel.write_text('kept')
    tool('mmcv_operators.sh', python, env=env)
    assert wheel.read_text() == 'kept'
    without = tool('mmcv_operators.sh', python, env={**env, 'FAKE_TORCH': ''}, check=False)
    assert without.returncode != 0
    assert 'pip install' not in without.stdout


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


@pytest.mark.parametrize(
    ('env', 'says'),
    [
        (dict(NODE_RANK='1'), 'NNODES=2 needs MASTER_ADDR, the address of the first machine'),
        (dict(MASTER_ADDR='10.0.0.1'), 'NNODES=2 needs NODE_RANK, the number of this machine from 0 on'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='second'), 'NNODES=2 needs NODE_RANK'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='2'), 'NODE_RANK must be less than NNODES=2, but is 2'),
    ],
)
@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_several_machines_say_who_and_where_they_are(script, env, says):
    """Otherwise each waits for the others in silence."""
    words = ('config.py', *(['checkpoint.pth'] if 'test' in script else []), 1)
    result = tool(script, *words, env=dict(env, NNODES='2', PYTHON='echo'), check=False)
    assert result.returncode == 2
    assert says in result.stderr.splitlines()[-1]


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


def copy_source(source):
    """What a wheel is built from, into a folder of its own."""
    for name in ('scopevit', 'configs', 'tools', 'projects', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '*.so'))
    for name in (
        'setup.py',
        'README.md',
        'CHANGELOG.md',
        'LICENSE',
        'MANIFEST.in',
        'model-index.yml',
        'pyproject.toml',
    ):
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
        'import torch, scopevit.models.ops.attention as module; q = torch.ones(1, 1, 4, 16); '
        'assert torch.equal(module.attention(q, q, q), q); print(module.KERNEL is not None, module.__file__)'
    )
    command, env = [sys.executable, '-c', script], dict(os.environ, PYTHONPATH=str(site))
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=site)
    has_kernel, file = result.stdout.split()
    assert file.startswith(str(site))
    return has_kernel == 'True'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """An unpacked wheel."""
    folder = tmp_path_factory.mktemp('wheel')
    source = copy_source(folder / 'source')
    # Through the source distribution, as an index has it.
    command = [sys.executable, 'setup.py', '-q', 'sdist', '-d', folder]
    subprocess.run(command, check=True, cwd=source, capture_output=True)
    with tarfile.open(next(folder.glob('scopevit-*.tar.gz'))) as archive:
        archive.extractall(folder, filter='data')
    return build_wheel(next(folder.glob('scopevit-*/')), SCOPEVIT_REPOSITORY='git@example.com:group/scopevit.git')


@pytest.mark.slow
def test_wheel_ships_kernel_configs_tools_and_model_index(site):
    assert which_attention(site) == KERNEL_IS_POSSIBLE
    mim = site / 'scopevit' / '.mim'
    of_a_checkout = {
        'setup.sh',
        'mmcv_operators.sh',
        'quickstart.sh',
        'run_tests.sh',
        'fashion_mnist_subset',
        'container',
    }
    for folder in ('configs', 'tools'):
        shipped = {p.relative_to(mim) for p in (mim / folder).rglob('*') if p.is_file()}
        tracked = subprocess.run(['git', 'ls-files', folder], cwd=ROOT, capture_output=True, text=True).stdout.split()
        assert shipped == {p for p in map(Path, tracked) if not of_a_checkout & set(p.parts)}
    assert (mim / 'model-index.yml').is_file()
    assert not [path for path in site.rglob('*') if path.name in ('projects', 'generator')]
    assert sum(p.stat().st_size for p in site.rglob('*')) < 2.5e6


@pytest.mark.slow
def test_source_distribution_has_what_the_quick_start_runs(site):
    source = next(site.parent.glob('scopevit-*/'))
    (scenes,) = re.findall(r'^scenes=(\S+)$', (source / 'tools/quickstart.sh').read_text(), flags=re.MULTILINE)
    names = re.findall(r'\$scenes/(\S+?\.py)', (source / 'tools/quickstart.sh').read_text())
    assert len(names) == 7
    assert all((source / scenes / name).is_file() for name in names)


@pytest.mark.slow
def test_wheel_says_what_it_is(site):
    (metadata,) = site.glob('scopevit-*.dist-info/METADATA')
    metadata = message_from_string(metadata.read_text())
    assert metadata['Author']
    assert 'https://example.com/group/scopevit' in ''.join(metadata.get_all('Project-URL') or [metadata['Home-page']])
    assert any('Python :: 3.14' in line for line in metadata.get_all('Classifier'))
    assert set(metadata.get_all('Provides-Extra')) == {
        'all',
        'classification',
        'detection',
        'segmentation',
        'pose',
        'export',
        'timm',
        'demo',
    }
    needs = [line for line in metadata.get_all('Requires-Dist') if 'detection' in line]
    assert any(line.startswith('mmcv-lite<2.2') for line in needs)
    assert not any(line.startswith(('mmcv<', 'mmcv>', 'mmcv=', 'mmpose')) for line in metadata.get_all('Requires-Dist'))
    description = metadata.get_payload()
    assert '](https://example.com/group/scopevit/blob/main/LICENSE)' in description
    assert '](configs/' not in description


def installed_scopevit(site, folder, *words):
    command = [sys.executable, '-m', 'scopevit', *map(str, words)]
    env = {**os.environ, 'PYTHONPATH': str(site)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)


@pytest.mark.slow
def test_wheel_runs_from_an_empty_folder(site, tmp_path):
    listed = installed_scopevit(site, tmp_path)
    for command in ('train', 'test', 'predict', 'swap', 'check', 'flops', 'benchmark', 'doctor', 'install-mmpose'):
        assert f'  {command} ' in listed.stdout
    for command in ('train', 'doctor'):  # a file and a module
        of_command = installed_scopevit(site, tmp_path, command, '--help')
        assert of_command.returncode == 0, of_command.stderr
        assert 'usage: ' in of_command.stdout
    wrong = installed_scopevit(site, tmp_path, 'trian')
    assert wrong.returncode == 2
    assert 'there is no command trian; did you mean train?' in wrong.stderr
    name = 'scopevit::classification/scopevit-tiny_8xb128-300e_in1k-256px.py'
    assert '8,006,716' in installed_scopevit(site, tmp_path, 'flops', name, '--size', 64, 64).stdout
    assert (
        'did you mean scopevit::' in installed_scopevit(site, tmp_path, 'flops', name.replace('tiny', 'teeny')).stderr
    )
    # As a base of somebody's config, in somebody's script.
    script = f'import scopevit, mmengine; print(mmengine.Config.fromstring("_base_ = {name!r}", ".py").model.head)'
    result = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(site)}
    )
    assert 'LinearClsHead' in result.stdout, result.stderr


@pytest.mark.slow
def test_without_a_compiler_scopevit_installs_and_uses_pytorchs_attention(tmp_path):
    assert not which_attention(build_wheel(copy_source(tmp_path / 'source'), CC='false', CXX='false'))
