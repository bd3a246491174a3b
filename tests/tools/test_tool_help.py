"""A tool's help, and what is wrong with its arguments, is there at once: without torch, which takes seconds."""

import json
import os
import subprocess
import sys

import pytest

from helpers import ROOT
from scopevit.__main__ import COMMANDS

SLOW = (
    *('torch', 'torchvision', 'triton', 'timm', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'mmpose'),
    *('numpy', 'cv2', 'PIL', 'matplotlib', 'rich', 'pycocotools', 'sklearn', 'onnx', 'onnxruntime', 'gradio'),
)
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'tools').rglob('*.py'))
CALLS = [*FILES, 'scopevit', *(f'scopevit {name}' for name in COMMANDS)]
# Files that do not exist; a config of scopevit's exists in each checkout and wheel.
THERE = 'scopevit::segmentation/scopevit-tiny_fpn_1xb8-60e-ft_custom-512x512.py'
NOT_THERE = {
    'tools/train.py no.py': 'config no.py does not exist; check the path',
    f'tools/train.py {THERE} --resume no.pth': 'checkpoint no.pth does not exist; check the path',
    f'tools/train.py {THERE} --pretrained no.pth': 'checkpoint no.pth does not exist; check the path',
    f'tools/test.py {THERE} no.pth': 'checkpoint no.pth does not exist; check the path',
    f'scopevit test {THERE.replace("tiny", "tinny")} no.pth': f'does not exist; did you mean {THERE}',
    f'tools/predict.py {THERE} {__file__} tests --out-dir x --detector-config no.py': 'config no.py does not exist',
    f'tools/predict.py {THERE} {__file__} no*.jpg no.jpg --out-dir x': 'input no.jpg does not exist; check the path',
    f'tools/analysis/data_time.py {THERE} no.py': 'config no.py does not exist',
    'tools/converters/average_checkpoints.py no.pth no2.pth --out x.pth': 'checkpoint no.pth does not exist',
    f'tools/visualization/cam.py {THERE} {__file__} no.jpg': 'image no.jpg does not exist; check the path',
    f'tools/visualization/draw_predictions.py {THERE} no.pkl': 'no.pkl does not exist; python tools/test.py writes it',
    'tools/visualization/plot_curves.py no': 'no has no training log',
    'tools/data/boxes_to_coco.py no no --classes a --out x.json': 'no is not a folder',
}
# Starts one after another with a word, each time as if scopevit had not been imported yet, and tells what came of it.
ASK = """
import contextlib, io, json, runpy, sys
found, (word, *names) = {}, sys.argv[1:]
for name in names:
    for module in [module for module in sys.modules if module.partition('.')[0] == 'scopevit']:
        del sys.modules[module]
    out = io.StringIO()
    file, *_ = sys.argv = [*name.split(), *word.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if file.endswith('.py'):
                runpy.run_path(file, run_name='__main__')
            else:
                from scopevit.__main__ import main
                main()
            end = 0
        except SystemExit as error:
            end = error.code
    found[name] = end, out.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Where each package that is slow to import ends the process."""
    folder = tmp_path_factory.mktemp('slow')
    for name in SLOW:
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(f'raise SystemExit("{name} was imported")')
    return {**os.environ, 'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}'}


def started(environment, word, calls=CALLS):
    command = [sys.executable, '-c', ASK, word, *calls]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    return json.loads(result.stdout) if result.returncode == 0 else pytest.fail(result.stderr)


@pytest.fixture(scope='module')
def helps(environment):
    return started(environment, '--help')


@pytest.fixture(scope='module')
def refusals(environment):
    return started(environment, '--no-such-option')


@pytest.mark.parametrize('call', CALLS)
def test_a_help_imports_nothing_slow(call, helps):
    end, text = helps[call]
    assert not end, f'{end}: import it in main(), behind parse_args(), see "A tool" in CONTRIBUTING.md'
    assert text.startswith('usage: ')


@pytest.mark.parametrize('call', CALLS)
def test_a_wrong_option_imports_nothing_slow(call, refusals):
    end, text = refusals[call]
    assert end == 2, text
    assert 'error: ' in text.splitlines()[-1]


@pytest.fixture(scope='module')
def searches(environment):
    return started(environment, '', NOT_THERE)


@pytest.mark.parametrize('call', NOT_THERE)
def test_a_file_that_does_not_exist_is_named_at_once(call, searches):
    end, text = searches[call]
    assert str(end).startswith('error: '), end
    assert NOT_THERE[call] in end
    assert not text


def test_configs_are_listed_without_torch(environment):
    for words in ([], ['--backbones']):
        command = [sys.executable, '-m', 'scopevit', 'list', *words]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert result.returncode == 0, result.stderr
        assert '| Parameters |' in ' '.join(result.stdout.split())


@pytest.mark.parametrize('words', [['tools/test.py'], ['-m', 'scopevit', 'test']], ids=['file', 'module'])
def test_a_process_of_its_own_tells_the_help(words, environment):
    command = [sys.executable, *words, 'config.py', '--help']
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    assert 'usage: ' in result.stdout


def test_choices_are_those_that_there_are():
    """Arguments name them without importing what they stand for."""
    from scopevit.analysis.evidence import METHODS
    from scopevit.models import ScopeViT
    from scopevit.utils import arguments, weight_names

    assert tuple(METHODS) == arguments.CAM_METHODS
    assert tuple(ScopeViT.arch_settings) == arguments.ARCHS
    assert set(weight_names.NAMINGS) == set(arguments.NAMINGS)
