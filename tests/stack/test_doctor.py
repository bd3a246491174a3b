"""The doctor: each fault that it knows is found and named with a remedy, and a sound environment has none."""

import subprocess
import sys

import pytest
import torch

from scopevit.stack import doctor

SOUND = {
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'mmengine': '0.10.7',
    'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0',
    'mmpose': '1.3.2',
    'numpy': '1.26.4',
    'setuptools': '80.8.0',
    'opencv-python': '4.11.0.86',
    'pip': '26.0',
}


@pytest.fixture
def machine(monkeypatch):
    """A sound machine, of which a test changes facts."""

    class Machine:
        def __init__(self):
            self.versions = dict(SOUND)
            self.errors = {}

        def has(self, **facts):
            for name, value in facts.items():
                monkeypatch.setattr(doctor, name, lambda value=value: value)

    machine = Machine()
    monkeypatch.setattr(doctor, 'version_of', lambda name: machine.versions.get(name))
    monkeypatch.setattr(doctor, 'import_error', lambda module: machine.errors.get(module))
    for name in ('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'):
        monkeypatch.delenv(name, raising=False)
    machine.has(
        gpus_of_driver=[],
        gpus_of_torch=[],
        unsupported_gpus=[],
        cuda_of_driver='13.0',
        cuda_of_torch='13.0',
        lacking_for_triton=None,
        shared_memory=8192,
        attention_kernel=True,
        kernel_is_possible=True,
        mmcv_is_compiled=True,
    )
    return machine


def only_finding():
    findings = doctor.examine()
    assert len(findings) == 1, findings
    return findings[0]


def finds(problem, remedy, stops):
    finding = only_finding()
    assert problem in finding.problem
    assert remedy in finding.remedy
    assert finding.stops == stops


def test_a_sound_machine_has_nothing(machine):
    assert doctor.examine() == []


def test_python_that_was_not_run(machine, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    finds('Python 3.14 was not run with this; 3.10 to 3.13 were', 'uv venv', False)


def test_missing_pip(machine):
    del machine.versions['pip']
    finds('pip is not installed', f'{sys.executable} -m ensurepip', False)


def test_missing_torch(machine):
    del machine.versions['torch']
    machine.errors['torch'] = ModuleNotFoundError("No module named 'torch'", name='torch')
    finds('torch is not installed', 'pip install torch torchvision', True)


def test_broken_torch(machine):
    machine.errors['torch'] = OSError('libcudnn.so.9: cannot open shared object file')
    finds('torch 2.14.1 cannot be imported: OSError: libcudnn.so.9', '--force-reinstall --no-deps torch==2.14.1', True)


def test_old_torch(machine):
    machine.versions.update(torch='2.0.1', torchvision='0.15.2')
    findings = doctor.examine()
    assert 'torch 2.0.1 is too old' in findings[0].problem


def test_missing_torchvision_comes_from_the_index_of_torch(machine):
    machine.versions.update(torch='2.13.0+cpu', torchvision=None)
    finds(
        'torchvision is not installed', "--index-url https://download.pytorch.org/whl/cpu 'torchvision==0.28.*'", True
    )


def test_torchvision_of_another_torch(machine):
    machine.errors['torchvision'] = RuntimeError('operator torchvision::nms does not exist')
    finds('torchvision 0.29.1 does not work with torch 2.14.1', "--no-deps 'torchvision>=0.29'", True)


def test_torchvision_of_another_version(machine):
    machine.versions['torchvision'] = '0.28.0'
    finds('torchvision 0.28.0 is not made for torch 2.14.1', "'torchvision>=0.29'", False)
    machine.versions.update(torch='2.13.0', torchvision='0.29.1')
    finds('torchvision 0.29.1 is not made for torch 2.13.0', "'torchvision==0.28.*'", False)


def test_torchvision_029_is_for_later_torches_as_well(machine):
    machine.versions.update(torch='2.15.0', torchvision='0.29.2')
    assert doctor.examine() == []


def test_setuptools_without_pkg_resources(machine):
    machine.versions['setuptools'] = '84.0.0'
    machine.errors['pkg_resources'] = ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources')
    finds('setuptools 84.0.0 has no pkg_resources', "pip install 'setuptools<82'", True)


def test_missing_mmengine(machine):
    machine.errors['mmengine'] = ModuleNotFoundError("No module named 'mmengine'", name='mmengine')
    del machine.versions['mmengine']
    finds('MMEngine is not installed', "pip install 'mmengine'", True)


def test_packages_whose_files_are_gone(machine):
    machine.errors['mmcv'] = ModuleNotFoundError("No module named 'mmcv'", name='mmcv')
    finds('mmcv is installed, but its files are not there', "--force-reinstall --no-deps 'mmcv-lite<2.2'", True)


def test_one_fault_is_told_once(machine):
    for module in ('torchvision', 'mmdet.models', 'mmpose.models', 'xtcocotools.mask'):
        machine.errors[module] = RuntimeError('operator torchvision::nms does not exist')
    finds('torchvision 0.29.1 does not work', 'torchvision>=0.29', True)
    machine.errors = {
        module: ModuleNotFoundError("No module named 'torch'", name='torch')
        for module in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet.models')
    }
    del machine.versions['torch']
    finds('torch is not installed', 'pip install torch torchvision', True)


def test_missing_mmcv(machine):
    del machine.versions['mmcv-lite']
    machine.errors['mmcv'] = ModuleNotFoundError("No module named 'mmcv'", name='mmcv')
    finds('mmcv is not installed', "pip install 'mmcv-lite<2.2'", True)


def test_two_mmcvs(machine):
    machine.versions['mmcv'] = '2.0.1'
    finds('mmcv 2.0.1 and mmcv-lite 2.1.0 are both installed', 'pip uninstall -y mmcv mmcv-lite', True)


def test_mmcv_that_the_toolboxes_refuse(machine):
    machine.versions['mmcv-lite'] = '2.2.0'
    finds('mmcv 2.2.0 is refused', "pip install 'mmcv-lite<2.2'", True)


def test_mmcv_without_operators_is_no_fault_but_said(machine):
    machine.has(mmcv_is_compiled=False)
    finds('CARAFE, deformable RoI pooling', '-m scopevit install-mmcv', False)


def test_mmcv_compiled_for_another_torch(machine):
    machine.errors['mmcv._ext'] = ImportError('_ext.so: undefined symbol: _ZN3c105ErrorC2E')
    finds("mmcv's operators were compiled for another torch: ImportError", 'install-mmcv', True)


def test_no_toolbox(machine):
    del machine.versions['mmdet'], machine.versions['mmpose']
    finds('no toolbox is installed', '.[classification]', True)


def test_mmpose_that_pip_could_not_bring(machine):
    machine.versions.update(mmpose=None, json_tricks='3.17.3', munkres='1.1.4')
    finds('mmpose is missing', 'python -m scopevit install-mmpose', False)


def test_toolbox_that_lacks_a_package(machine):
    machine.errors['mmdet.models'] = ModuleNotFoundError("No module named 'shapely.geometry'", name='shapely.geometry')
    finds('mmdet lacks the package shapely', 'pip install shapely', True)


def test_toolbox_that_does_not_import(machine):
    machine.errors['mmdet.models'] = AssertionError('MMCV==2.3.0 is used but incompatible.\nPlease install')
    finds('mmdet cannot be imported: AssertionError: MMCV==2.3.0 is used but incompatible.', 'pip install', True)


def test_transformers_that_mmpretrain_cannot_take(machine):
    machine.versions.update(mmpretrain='1.2.0', transformers='4.56.0')
    machine.errors['mmpretrain.models'] = ImportError("cannot import name 'apply_chunking_to_forward'")
    finds('mmpretrain does not work with transformers 4.56.0', "pip install 'transformers<4.50'", True)


def test_two_distributions_of_one_module(machine):
    machine.versions['onedl-mmengine'] = '0.10.12'
    finds('two distributions of mmengine', 'pip uninstall -y mmengine onedl-mmengine', True)


def test_fork_over_mmcv_lite(machine):
    machine.versions['onedl-mmcv'] = '2.3.6'
    finds('two distributions of mmcv', 'pip uninstall -y', True)


def test_mixed_families(machine):
    machine.versions['onedl-mmsegmentation'] = '1.4.2'
    finds('mixed: mmengine, mmcv, mmdet and onedl-mmsegmentation', 'one family', False)


def test_xtcocotools_of_another_numpy(machine):
    machine.versions['numpy'] = '2.3.5'
    machine.errors['xtcocotools.mask'] = ValueError('numpy.dtype size changed, may indicate binary incompatibility')
    finds('cannot be imported beside numpy 2.3.5', 'python -m scopevit install-mmpose', True)


def test_two_opencvs(machine):
    machine.versions['opencv-python-headless'] = '4.12.0.88'
    finds('opencv-python and opencv-python-headless', 'pip uninstall -y opencv-python opencv-python-headless', False)


def test_missing_opencv(machine):
    del machine.versions['opencv-python']
    machine.errors['cv2'] = ModuleNotFoundError("No module named 'cv2'", name='cv2')
    finds('OpenCV is not installed', "pip install 'opencv-python'", True)


def test_opencv_of_another_packager_is_no_fault(machine):
    del machine.versions['opencv-python']
    assert doctor.examine() == []


def test_opencv_without_libraries_of_the_system(machine):
    machine.errors['cv2'] = ImportError('libGL.so.1: cannot open shared object file')
    finds('OpenCV lacks a library of the system: ImportError: libGL.so.1', 'opencv-python-headless==4.11.0.86', True)


@pytest.mark.parametrize(
    ('cuda', 'driver', 'problem', 'remedy'),
    [
        (None, '13.0', 'is a CPU build', 'pip install torch torchvision'),
        (None, '12.4', 'is a CPU build', 'pip install --index-url https://download.pytorch.org/whl/cu126 torch torch'),
        ('13.0', '12.4', 'built for CUDA 13.0', 'https://download.pytorch.org/whl/cu126 torch torchvision'),
        ('13.0', '13.1', 'built for CUDA 13.0', 'CUDA_VISIBLE_DEVICES'),
    ],
)
def test_gpu_that_torch_does_not_use(cuda, driver, problem, remedy, machine):
    machine.has(gpus_of_driver=['NVIDIA H100, 550.54'], cuda_of_torch=cuda, cuda_of_driver=driver)
    finds(problem, remedy, False)


def test_gpu_without_code(machine):
    machine.has(unsupported_gpus=['Tesla P100 (compute capability 6.0)'], gpus_of_torch=['Tesla P100'])
    finds('torch 2.14.1 has no code for Tesla P100 (compute capability 6.0)', 'whl/cu126', True)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of compute capability 9.0, as torch tells of it."""

    def is_like(available=True, built=('sm_90',)):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: available)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)  # the driver is asked, whatever its age
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: 'NVIDIA H100' if available else 1 / 0)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: (9, 0))
        monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: list(built))

    return is_like


def test_gpu_of_a_driver_that_is_too_old_is_none_for_torch(gpu):
    gpu(available=False)
    assert doctor.gpus_of_torch() == doctor.unsupported_gpus() == []


@pytest.mark.parametrize(
    ('built', 'runs'),
    [(['sm_90a'], True), (['sm_80', 'sm_86'], False), (['sm_80', 'compute_80'], True), (['sm_100'], False), ([], True)],
)
def test_code_that_runs_on_a_gpu(built, runs, gpu):
    gpu(built=built)
    assert doctor.unsupported_gpus() == ([] if runs else ['NVIDIA H100 (compute capability 9.0)'])


def test_small_shared_memory(machine):
    machine.has(shared_memory=64)
    finds('64 MiB of shared memory', 'docker run --ipc=host', False)


def test_missing_kernel(machine):
    machine.has(attention_kernel=False)
    finds("ScopeViT's attention kernel for CPUs is missing", 'install a C++ compiler', False)


def test_what_triton_lacks_matters_where_there_is_a_gpu(machine):
    machine.has(lacking_for_triton='a C compiler')
    assert not doctor.examine()
    machine.has(gpus_of_torch=['NVIDIA H100'], gpus_of_driver=['NVIDIA H100'])
    finds("Triton lacks a C compiler: ScopeViT's kernels for GPUs stay off", 'apt-get install gcc python3-dev', False)


def test_unsafe_loading(machine, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    finds('checkpoints may run code', 'unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', False)


@pytest.mark.parametrize(('stops', 'status'), [(True, 1), (False, 0)])
def test_status_says_whether_a_training_can_start(stops, status, machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'CHECKS', [lambda: iter([doctor.Finding('it is broken', 'repair it', stops)])])
    monkeypatch.setattr(sys, 'argv', ['doctor'])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    assert end.value.code == status
    printed = capsys.readouterr().out
    assert f'{"error" if stops else "note"}: it is broken\n  repair it' in printed
    assert 'mmengine                0.10.7' in printed
    monkeypatch.setattr(sys, 'argv', ['doctor', '--findings'])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    assert end.value.code == status
    assert capsys.readouterr().out == f'\n{"error" if stops else "note"}: it is broken\n  repair it\n'


def test_what_every_set_up_leaves_is_not_said_at_its_end(machine, monkeypatch, capsys):
    machine.has(mmcv_is_compiled=False)
    monkeypatch.setattr(sys, 'argv', ['doctor', '--findings'])
    with pytest.raises(SystemExit):
        doctor.main()
    assert capsys.readouterr().out == ''


def test_remedies_are_for_this_environment(machine, monkeypatch):
    """Whatever pip is first on the path."""
    missing = ModuleNotFoundError("No module named 'mmengine'", name='mmengine')
    for name, facts in {'opencv-python-headless': {}, 'onedl-mmengine': {}, 'mmcv': {'mmengine': missing}}.items():
        machine.versions[name] = '2.1.0'
        machine.errors.update(facts)
        for finding in doctor.examine():
            assert finding.remedy.count('pip ') == finding.remedy.count(f'{sys.executable} -m pip ') > 0


def test_this_environment_can_train():
    result = subprocess.run([sys.executable, '-m', 'scopevit', 'doctor'], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'A training can start.' in result.stdout


def test_it_runs_where_nothing_is_installed(tmp_path, root):
    """In an interpreter that sees neither torch nor MMEngine; importing scopevit says the same in one line."""
    command = [sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(root)!r}); ']
    run = 'sys.argv[1:] = ["doctor"]; import runpy; runpy.run_module("scopevit", run_name="__main__")'
    result = subprocess.run([*command[:-1], command[-1] + run], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert 'error: torch is not installed' in result.stdout
    assert 'A training cannot start here' in result.stdout
    run = 'from scopevit import ScopeViT'
    result = subprocess.run([*command[:-1], command[-1] + run], capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr.strip().splitlines()[-1].startswith('ImportError: scopevit cannot be used: ModuleNotFound')
    assert 'scopevit doctor' in result.stderr


OLD_TORCH = """
import sys, torch
del torch.serialization.add_safe_globals
sys.argv[1:] = ['doctor', '--help']
import runpy; runpy.run_module('scopevit', run_name='__main__')
"""


def test_it_runs_where_torch_is_too_old_for_the_models():
    result = subprocess.run([sys.executable, '-c', OLD_TORCH], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'usage: scopevit doctor' in result.stdout
    assert "no attribute 'add_safe_globals' (python -m scopevit doctor tells what to do)" in result.stderr


def test_a_python_that_is_too_old_is_named():
    run = 'import sys; sys.version_info = (3, 9, 18); import scopevit'
    result = subprocess.run([sys.executable, '-c', run], capture_output=True, text=True)
    assert 'ImportError: scopevit needs Python 3.10 to 3.13' in result.stderr.splitlines()[-1]
