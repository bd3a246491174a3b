"""The set-up: what it installs, keeps and says; and what is shipped in wheels."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path

import pytest

from helpers import KERNEL_IS_POSSIBLE, ROOT, fails_cleanly, tool

TAKES_ANYTHING = ('run_tests.sh',)  # hands its arguments on to pytest
SCRIPTS = sorted(path.name for path in (ROOT / 'tools').glob('*.sh') if path.name not in ('env.sh', 'usage.sh'))

READ_BY_SET_UP = (
    *('setup.py', 'scopevit/stack/mmpose.py', 'scopevit/stack/plan.py'),
    *('scopevit/models/ops/mmcv_finder.py', 'scopevit/models/ops/attention.cpp'),
)
# Stands for a Python and its environments: writes down what it is called with. FAKE_SITE has the packages
# that are installed; FAKE_FAILS is a word of the call that fails, FAKE_GPUS how many processes one GPU allows.
FAKE_PYTHON = (
    f"""#!/bin/bash
here() {{ exec env PYTHONPATH="$FAKE_SITE" {sys.executable} -S "$@"; }}
"""
    r"""
echo "$*" >> "$FAKE_CALLS"
if [ -n "$FAKE_FAILS" ] && [[ "$*" = *"$FAKE_FAILS"* ]]; then
    echo "${FAKE_ERROR:-ERROR: No space left on device}"
    exit 1
fi
case "$*" in
    --version) echo "Python ${FAKE_VERSION:-3.12.9}" ;;
    *plan.py*|*"m.version('"*) here "$@" ;;
    *'print(sys.prefix)') (cd "$(dirname "$0")/.." && pwd) ;;
    *'import torch; print'*) echo "$FAKE_PROCESSES" ;;
    *doctor*) echo "$FAKE_FINDINGS" ;;
    *'pip install'*' -c '*)
        while [ "$1" != -c ]; do
            if [ "$1" = --report ]; then echo "$FAKE_REPORT" > "$2"; fi
            shift
        done
        if [[ "$*" = *' -r '* ]]; then
            cp "$2" "$FAKE_CALLS.constraints"
            cat "$(dirname "$2")"/*b.txt "$(dirname "$2")"/detection.txt > "$FAKE_CALLS.lists"
        fi ;;
    *'-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""
)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of what the set-up reads, Pythons that only write down what they are to do, and no GPU."""
    checkout = tmp_path / 'checkout'
    for name in ('tools', 'requirements'):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns('fashion_mnist_subset'))
    for name in READ_BY_SET_UP:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    for name in ('TORCH_INDEX_URL', 'VIRTUAL_ENV', 'CONDA_PREFIX'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PYTHON', str(executable(tmp_path / 'python/bin/python', FAKE_PYTHON)))
    monkeypatch.setenv('FAKE_CALLS', str(tmp_path / 'calls'))
    monkeypatch.setenv('FAKE_SITE', str(tmp_path / 'site'))
    executable(tmp_path / 'bin/nvidia-smi', '#!/bin/bash\nexit 9\n')
    for name in ('python', 'python3.12'):
        executable(tmp_path / 'bin' / name, FAKE_PYTHON)
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    return checkout


def install(name, version, cuda='13.0'):
    """Put a package, for torch with the CUDA that it is built for, into the environments that there are."""
    site = Path(os.environ['FAKE_SITE'])
    file = name.replace('-', '_')
    for old in site.glob(f'{file}-*'):
        shutil.rmtree(old)
    info = site / f'{file}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    if name == 'torch':
        (site / 'torch').mkdir(exist_ok=True)
        (site / 'torch/__init__.py').touch()
        (site / 'torch/version.py').write_text(f'cuda, hip = {cuda!r}, None')


def gpu(cuda):
    """Put a GPU into the machine, whose driver takes that CUDA."""
    smi = Path(os.environ['PATH'].split(':')[0]) / 'nvidia-smi'
    executable(
        smi, f'#!/bin/bash\necho "| NVIDIA-SMI 550.54     Driver Version: 550.54     CUDA Version: {cuda}     |"\n'
    )


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
    assert '-m scopevit doctor --findings' in calls
    assert 'TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu bash tools/setup.sh' in result.stderr
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


def torch_step(checkout, **environment):
    """How torch and torchvision are installed."""
    (checkout / '.venv/.scopevit-setup').unlink(missing_ok=True)
    result, calls = set_up(checkout, **environment)
    assert result.returncode == 0, result.stderr
    return pip_calls(calls)[0].removeprefix('-m pip install --disable-pip-version-check ')


def test_a_torch_that_is_there_stays_and_torchvision_follows_it(checkout):
    index = 'https://download.pytorch.org/whl'
    install('torch', '2.13.0+cu126', cuda='12.6')
    step = f'--index-url {index}/cu126 --no-deps torch==2.13.0+cu126 torchvision==0.28.*'
    assert torch_step(checkout) == step
    assert [line for line in constraints() if line.startswith('torch')] == step.split()[-2:]
    install('torch', '2.13.0')
    assert torch_step(checkout).endswith('.txt torch==2.13.0 torchvision==0.28.*')
    assert '--index-url' not in torch_step(checkout, TORCH_INDEX_URL='https://download.pytorch.org/whl/cpu')
    install('torch', '2.14.1', cuda=None)  # as conda-forge names one for CPUs
    assert torch_step(checkout) == f'--index-url {index}/cpu --no-deps torch==2.14.1 torchvision>=0.29'
    install('torch', '2.6.0a0+ecf3bae40a.nv25.1')  # of NVIDIA's containers
    install('torchvision', '0.22.0a0')
    assert torch_step(checkout).endswith('.txt torch==2.6.0a0+ecf3bae40a.nv25.1 torchvision==0.22.0a0')


def test_another_torch_than_one_asks_for_is_named_with_the_command(checkout):
    install('torch', '2.14.1')
    cpu = dict(TORCH_INDEX_URL='https://download.pytorch.org/whl/cpu')
    for _ in ('set up', 'up to date'):
        result, _ = set_up(checkout, **cpu)
        assert 'note: torch 2.14.1 (CUDA 13.0) stays, though TORCH_INDEX_URL says otherwise' in result.stderr
        assert (
            'pip install --force-reinstall --no-deps --index-url https://download.pytorch.org/whl/cpu' in result.stderr
        )
    assert 'up to date' in result.stdout
    assert 'stays' not in set_up(checkout, TORCH_INDEX_URL='https://download.pytorch.org/whl/cu130')[0].stderr
    install('torch', '2.14.1+cpu', cuda=None)
    assert 'stays' not in set_up(checkout, **cpu)[0].stderr


def test_a_package_that_was_exchanged_since_is_set_right(checkout):
    install('numpy', '1.26.4')
    set_up(checkout)
    assert 'up to date' in set_up(checkout)[0].stdout
    install('numpy', '2.3.5')
    assert pip_calls(set_up(checkout)[1])


@pytest.mark.parametrize('torch', ['1.13.1', '2.5.1+cu121'])
def test_a_torch_that_is_too_old_is_named_before_anything_changes(torch, checkout):
    install('torch', torch)
    result, calls = set_up(checkout)
    assert result.returncode == 1
    assert f'torch=={torch}, and scopevit takes PyTorch 2.6 or newer' in result.stderr
    assert 'pip install --upgrade torch torchvision' in result.stderr
    assert not pip_calls(calls)


def test_a_driver_that_is_too_old_is_named_before_the_download(checkout):
    gpu('12.4')
    result, calls = set_up(checkout)
    assert result.returncode == 1
    assert "the GPU's driver is for CUDA 12.4, PyPI's torch for CUDA 13" in result.stderr
    assert 'TORCH_INDEX_URL=https://download.pytorch.org/whl/cu126 bash tools/setup.sh' in result.stderr
    assert not pip_calls(calls)
    assert set_up(checkout, TORCH_INDEX_URL='https://download.pytorch.org/whl/cu126')[0].returncode == 0
    gpu('13.1')
    (checkout / '.venv/.scopevit-setup').unlink()
    result, _ = set_up(checkout)
    assert (result.returncode, result.stderr) == (0, '')


def test_what_does_not_fit_stands_at_the_end(checkout):
    result, _ = set_up(checkout, FAKE_FINDINGS='note: trainings would run on the CPU')
    assert result.returncode == 0
    assert 'note: trainings would run on the CPU\nSet-up: .venv is ready' in result.stdout


def test_an_environment_without_pip_gets_it(checkout):
    """As uv makes one, or python -m venv that was stopped."""
    result, calls = set_up(checkout, FAKE_FAILS='-m pip --version')
    assert result.returncode == 0
    assert calls.index('-m ensurepip') < calls.index(pip_calls(calls)[0])
    (checkout / '.venv/.scopevit-setup').unlink()
    assert '-m ensurepip' not in set_up(checkout)[1]


def test_without_libraries_for_windows_opencv_comes_without_windows(checkout):
    result, calls = set_up(checkout, FAKE_FAILS='libgthread')
    assert result.returncode == 0, result.stderr
    assert 'This machine lacks libgthread-2.0.so.0: OpenCV comes without windows' in result.stdout
    assert ('sudo apt-get' in result.stdout) == bool(os.getuid())
    where = calls.index('-m pip uninstall -y opencv-python')
    assert calls[where + 1].endswith(
        '-c requirements/constraints.txt --no-deps --force-reinstall opencv-python-headless'
    )
    pins = (ROOT / 'requirements/constraints.txt').read_text()
    assert re.findall('^opencv-python(==.+?;.+?) ', pins, re.M) == re.findall('headless(==.+?;.+?) ', pins)
    (checkout / '.venv/.scopevit-setup').unlink()
    assert not any('opencv' in call for call in pip_calls(set_up(checkout)[1]))
    install('opencv-python-headless', '4.10.0.84')
    result, calls = set_up(checkout)
    assert '-m pip uninstall -y opencv-python' in calls
    assert 'lacks' not in result.stdout


def test_a_compiled_mmcv_stays(checkout):
    install('mmcv', '2.1.0')
    set_up(checkout)
    lists = Path(os.environ['FAKE_CALLS'] + '.lists').read_text()
    assert 'mmdet' in lists
    assert '\nmmcv-lite' not in lists
    shutil.rmtree(os.environ['FAKE_SITE'])
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


def test_a_python_that_was_run_goes_before_one_that_was_not(checkout, tmp_path, monkeypatch):
    for name, version in (('python3', '3.14.0'), ('python3.11', '3.11.7')):
        executable(tmp_path / 'bin' / name, FAKE_PYTHON.replace('3.12.9', version))
    for minor in (12, 13, 10, 14):
        executable(tmp_path / f'bin/python3.{minor}', '#!/bin/bash\nexit 127')  # as pyenv has those of other folders
    monkeypatch.delenv('PYTHON')
    assert 'Making .venv (Python 3.11.7)' in set_up(checkout)[0].stdout
    shutil.rmtree(checkout / '.venv')
    (tmp_path / 'bin/python3.11').write_text('exit 127')
    assert 'Making .venv (Python 3.14.0)' in set_up(checkout)[0].stdout
    executable(tmp_path / 'bin/python3.12', FAKE_PYTHON)
    assert 'up to date' in set_up(checkout)[0].stdout  # in what is there


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
    for words in ('Python 3.10 to 3.13', 'python3-venv', 'uv python install 3.12', 'pyenv install 3.12'):
        assert words in result.stderr


@pytest.fixture
def active(tmp_path, monkeypatch):
    """An environment that is active."""
    executable(tmp_path / 'active/bin/python', FAKE_PYTHON)
    monkeypatch.delenv('PYTHON')
    monkeypatch.setenv('FAKE_REPORT', '{"install": []}')
    return dict(VIRTUAL_ENV=str(tmp_path / 'active'))


def test_active_environment_is_asked_about_before_it_changes(checkout, active):
    result, calls = set_up(checkout, '--active', **active)
    assert result.returncode == 1
    assert 'nothing was changed: there is no terminal to ask on' in result.stderr
    assert 'bash tools/setup.sh --active --yes' in result.stderr
    assert all('--dry-run' in call for call in pip_calls(calls))
    assert [path.name for path in Path(active['VIRTUAL_ENV']).iterdir()] == ['bin']
    result, _ = set_up(checkout, '--active', FAKE_FAILS='--dry-run', FAKE_ERROR='no such option: --dry-run', **active)
    assert 'pip cannot tell what would change: no such option' in result.stderr
    assert 'active/bin/python -m pip install --upgrade pip' in result.stderr
    result, calls = set_up(checkout, '--active', '--yes', **active)
    assert result.returncode == 0, result.stderr
    assert not any('-m venv' in call for call in calls)
    assert len([call for call in pip_calls(calls) if '--dry-run' not in call]) == 3
    # What is complete is not asked about again, unless something would change.
    (checkout / 'requirements' / 'core.txt').write_text('# changed\n')
    result, _ = set_up(checkout, '--active', **active)
    assert result.returncode == 0, result.stderr
    (checkout / 'requirements' / 'core.txt').write_text('# changed again\n')
    report = json.dumps(dict(install=[dict(metadata=dict(name='mmdet', version='3.3.0'))]))
    result, _ = set_up(checkout, '--active', FAKE_REPORT=report, **active)
    assert 'nothing was changed' in result.stderr


def test_active_environment_is_told_what_takes_the_place_of_what(checkout, active):
    install('numpy', '2.3.5')
    items = [dict(metadata=dict(name=name, version='1.26.4')) for name in ('mmdet', 'numpy', 'mmengine')]
    index = 'https://download.pytorch.org/whl/cpu'
    report = json.dumps(dict(install=items))
    result, calls = set_up(checkout, '--active', FAKE_REPORT=report, TORCH_INDEX_URL=index, **active)
    assert '  numpy 1.26.4 in place of 2.3.5\n  new: mmdet 1.26.4, mmengine 1.26.4\n' in result.stdout
    assert f'--extra-index-url {index}' in pip_calls(calls)[0]  # else torch's CUDA would be listed


def test_active_takes_the_python_that_is_named(checkout, active):
    """A container's own, which keeps its torch."""
    python = Path(active['VIRTUAL_ENV']) / 'bin/python'
    result, calls = set_up(checkout, '--active', '--yes', PYTHON=str(python))
    assert result.returncode == 0, result.stderr
    assert f'Set-up: {active["VIRTUAL_ENV"]} is ready' in result.stdout
    assert not any('-m venv' in call for call in calls)


def test_active_needs_an_active_environment(checkout, active):
    result, calls = set_up(checkout, '--active')
    assert result.returncode == 1
    assert 'no environment is active' in result.stderr
    assert 'PYTHON=/usr/bin/python3' in result.stderr


def quick_start(checkout, *words, **environment):
    """Run the quick start; returns the finished process and the commands of train.py and test.py."""
    calls = Path(os.environ['FAKE_CALLS'])
    calls.write_text('')
    command = ['bash', checkout / 'tools/quickstart.sh', *words]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    launched = re.findall('^.*tools/launch.py (.+)$', calls.read_text(), re.MULTILINE)
    return result, [command.split(' ') for command in launched]


def test_quick_start_trains_in_two_processes_or_on_one_gpu_in_one_of_their_batches(checkout):
    result, launched = quick_start(checkout)
    assert result.returncode == 0, result.stderr
    assert [command[:2] for command in launched] == [['2', 'train'], ['2', 'test']]
    assert '--cfg-options' not in launched[0]
    gpu('13.1')
    _, launched = quick_start(checkout, FAKE_PROCESSES='2')
    assert [command[:2] for command in launched] == [['2', 'train'], ['2', 'test']]
    result, launched = quick_start(checkout, FAKE_PROCESSES='1')
    assert [command[:2] for command in launched] == [['1', 'train'], ['1', 'test']]
    assert launched[0][-2:] == ['--cfg-options', 'train_dataloader.batch_size=128']
    words = ('--task', 'all', '--pretrained', checkout / 'setup.py')
    _, launched = quick_start(checkout, *words, FAKE_PROCESSES='1')
    batches = [command[-1].rpartition('=')[2] for command in launched if command[1] == 'train']
    assert batches == ['8', '8', '8', '8', '32']


def test_a_figure_that_fails_does_not_take_the_result_along(checkout):
    result, _ = quick_start(checkout, FAKE_FAILS='plot_curves')
    assert result.returncode == 0
    assert 'One figure could not be drawn' in result.stderr
    assert result.stdout.endswith('Look at predictions.png and curves.png there.\n')


def test_quick_start_runs_in_an_active_environment_that_was_completed(checkout, active):
    result, _ = quick_start(checkout, **active)
    assert 'Making .venv' in result.stdout
    set_up(checkout, '--active', '--yes', **active)
    for named in (active, dict(PYTHON=f'{active["VIRTUAL_ENV"]}/bin/python'), dict(CONDA_PREFIX=active['VIRTUAL_ENV'])):
        result, launched = quick_start(checkout, **named)
        assert f'Set-up: {active["VIRTUAL_ENV"]} is up to date' in result.stdout
        assert launched


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
    assert command.strip().endswith('launch.py 2 train config.py --help')  # train.py's


@pytest.mark.parametrize('script', [script for script in SCRIPTS if script not in TAKES_ANYTHING])
def test_wrong_arguments_show_the_usage_and_what_is_wrong(script):
    result = tool(script, '--sead', check=False)
    assert result.returncode == 2
    assert f'bash tools/{script}' in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith('error: ')


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--task', 'everything'], '--task must be classification, detection, instance, segmentation, pose or all'),
        (['--task'], '--task needs a value'),
        (['--task', 'pose', '--pretrained', 'missing.pth'], '--pretrained missing.pth does not exist'),
        (['--pretrained', 'setup.py'], '--pretrained is for the tasks that fine-tune a backbone: add --task detection'),
    ],
)
def test_quickstart_refuses_before_it_sets_up(words, says):
    result = tool('quickstart.sh', *words, check=False, env=dict(PYTHON='false'))  # should it not, nothing is set up
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
    repository = dict(os.environ, SCOPEVIT_REPOSITORY='git@example.com:group/scopevit.git')
    subprocess.run(command, check=True, cwd=source, capture_output=True, env=repository)
    with tarfile.open(next(folder.glob('scopevit-*.tar.gz'))) as archive:
        archive.extractall(folder, filter='data')
    return build_wheel(next(folder.glob('scopevit-*/')))


@pytest.mark.slow
def test_wheel_ships_kernel_configs_tools_and_model_index(site):
    assert which_attention(site) == KERNEL_IS_POSSIBLE
    mim = site / 'scopevit' / '.mim'
    of_a_checkout = {
        'setup.sh',
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
    pythons = re.findall(r'Python :: 3\.(\d+)', '\n'.join(metadata.get_all('Classifier')))
    assert pythons == ['10', '11', '12', '13']
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
    assert ')](https://example.com/group/scopevit/blob/main/LICENSE)' in description
    for start in ('](', 'src="', 'srcset="'):
        targets = re.findall(rf'{re.escape(start)}([^)"\s]+)', description)
        assert targets
        assert [target for target in targets if not target.startswith(('https://', '#'))] == []
    assert 'https://example.com/group/scopevit/raw/main/docs/figures/architecture_light.svg' in description
    assert 'https://example.com/group/scopevit/actions/workflows/tests.yml/badge.svg' in description


def installed_scopevit(site, folder, *words):
    command = [sys.executable, '-m', 'scopevit', *map(str, words)]
    env = {**os.environ, 'PYTHONPATH': str(site)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)


@pytest.mark.slow
def test_wheel_runs_from_an_empty_folder(site, tmp_path):
    listed = installed_scopevit(site, tmp_path)
    for command in ('train', 'test', 'predict', 'swap', 'check', 'flops', 'benchmark', 'doctor', 'install-mmpose'):
        assert f'  {command} ' in listed.stdout
    launched = installed_scopevit(site, tmp_path, 'launch', 2, 'train', 'nothing.py')
    fails_cleanly(launched, 'config nothing.py does not exist')
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
