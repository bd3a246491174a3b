"""Files that someone made to do harm: one line each, nothing executed, whatever tool they are given to."""

import contextlib
import pickle
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from mmengine.config import Config

from helpers import TOY, fails_cleanly, tool_here, write_image
from scopevit.apis.model import build_model
from scopevit.engine.evaluation import read_predictions
from scopevit.engine.resume import read_resumable
from scopevit.utils.checkpoint import CheckpointError, get_state_dict, read_checkpoint
from scopevit.utils.errors import UserError


def toy(path):
    """The toy config without bases, beside a checkpoint: to find them would take half of most tools' time."""
    return path.parent / 'toy.py'


TAKING_CHECKPOINTS = {
    'resume': lambda path, out: ('train.py', toy(path), '--work-dir', out, '--resume', path),
    'load_from': lambda path, out: ('train.py', toy(path), '--work-dir', out, '--cfg-options', f'load_from={path}'),
    'pretrained': lambda path, out: ('train.py', toy(path), '--work-dir', out, '--pretrained', path),
    'test': lambda path, out: ('test.py', toy(path), path, '--work-dir', out),
    'predict': lambda path, out: ('predict.py', toy(path), path, out / 'image.png', '--out-dir', out / 'results'),
    'publish': lambda path, out: ('converters/publish_model.py', path, out / 'p.pth'),
    'deploy': lambda path, out: ('converters/deploy_model.py', toy(path), path, out / 'd.pth'),
    'rename': lambda path, out: ('converters/rename_weights.py', path, out / 'r.pth', '--arch', 'xtiny'),
    'export': lambda path, out: ('export/onnx_export.py', toy(path), path, out / 'x.onnx'),
    'average': lambda path, out: (
        *('converters/average_checkpoints.py', path.parent / 'good.pth', path),
        *('--across-runs', '--out', out / 'a.pth'),
    ),
    'cam': lambda path, out: ('visualization/cam.py', toy(path), path, out / 'image.png', '--out', out / 'c.png'),
    'scopes': lambda path, out: (
        *('visualization/scopes.py', toy(path), out / 'image.png'),
        *('--checkpoint', path, '--out', out / 's.png'),
    ),
    'detector': lambda path, out: (
        *('predict.py', path.parent / 'pose.py', path.parent / 'pose.pth', out / 'image.png'),
        *('--detector-config', toy(path), '--detector-checkpoint', path, '--out-dir', out / 'results'),
    ),
}
"""Every tool that takes one but demo.py, which needs gradio and reads it by the function that predict.py calls."""
# Weights that do not fit the model, of which copies can still be made.
COPIED = {'other_shapes', 'complex'}
LINUX_PROCESS = Path('/proc/self')
MOST_SECONDS = 30
MOST_BYTES = 1.2e9
"""What a file may make a tool take, beyond the libraries, which are some 0.6 GB."""


def took_too_long(*_):
    pytest.fail(f'it takes more than {MOST_SECONDS} s')


@contextlib.contextmanager
def bounded():
    """Holds time, that of waiting included, and on Linux memory of this process to what a tool may take."""
    before = None
    with contextlib.suppress(OSError):
        LINUX_PROCESS.joinpath('clear_refs').write_text('5')  # the highest amount of memory counts from now on
        before = memory('VmRSS')
    usual = signal.signal(signal.SIGALRM, took_too_long)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)
    if before is not None:
        assert memory('VmHWM') - before < MOST_BYTES


def memory(name):
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    (line,) = [line for line in LINUX_PROCESS.joinpath('status').read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


@pytest.fixture(autouse=True)
def plain_configs(monkeypatch):
    """Saves configs as they are: to format each three times would take most of a training's start."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **options: (text, True))


@pytest.fixture(scope='module')
def files(models, tmp_path_factory):
    """Folder, checkpoints that nothing can use, and those that only trainings cannot go on from."""
    folder = tmp_path_factory.mktemp('hostile')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        written = hostile.write_all(folder, build_model(Config.fromfile(TOY)), folder / 'proof')
    Config.fromfile(TOY).dump(folder / 'toy.py')
    for path in models['pose']:  # a model that needs a detector
        shutil.copy(path, folder / f'pose{path.suffix}')
    return folder, *written


def test_no_hostile_checkpoint_is_read(files):
    folder, useless, _ = files
    assert len(useless) > 40
    get_state_dict(read_resumable(folder / 'good.pth'), 'good.pth')
    for path in useless:
        if path.stem not in COPIED:
            with pytest.raises(CheckpointError) as refused:
                get_state_dict(read_checkpoint(path), str(path))
            assert str(path) in str(refused.value)
    assert not (folder / 'proof').exists()


@pytest.mark.parametrize('use', TAKING_CHECKPOINTS)
def test_every_tool_refuses_code(use, files, toy_options, tmp_path):
    give(use, files[0] / 'code.pth', files, toy_options, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('use', ['resume', 'predict', 'publish'])
def test_content_that_is_nested_without_end_is_refused(use, files, toy_options, tmp_path):
    give(use, files[0] / 'nested.pth', files, toy_options, tmp_path)


def test_a_tool_that_waits_without_end_is_noticed(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'MOST_SECONDS', 1)
    with pytest.raises(pytest.fail.Exception, match='more than 1 s'), bounded():
        time.sleep(20)


@pytest.mark.slow
@pytest.mark.parametrize('use', TAKING_CHECKPOINTS)
def test_every_tool_refuses_every_hostile_checkpoint(use, files, toy_options, tmp_path):
    folder, useless, of_training = files
    # What is nested without end takes seconds each time: see above.
    refused = [path for path in useless if path.stem != 'nested' and (use != 'publish' or path.stem not in COPIED)]
    for path in refused + (of_training if use == 'resume' else []):
        if use != 'resume' or path.stem not in hostile.LEFT_OUT:
            give(use, path, files, toy_options, tmp_path)
    # Of others the weights are taken, and what is wrong is left.
    if use in ('predict', 'publish', 'deploy', 'rename'):
        for path in of_training:
            result = run(use, path, toy_options, tmp_path / path.stem)
            assert (result.returncode == 0) == (use != 'rename'), result.stderr[-3000:]


def run(use, path, toy_options, out):
    write_image(out / 'image.png', size=(32, 32))
    words = TAKING_CHECKPOINTS[use](path, out)
    data = toy_options[1:] if '--cfg-options' in words else toy_options
    return tool_here(*words, *(data if words[0] in ('train.py', 'test.py') else ()))


def give(use, path, files, toy_options, tmp_path):
    with bounded():
        result = run(use, path, toy_options, tmp_path / path.name)
    fails_cleanly(result, str(path))
    assert not (files[0] / 'proof').exists()


def test_predictions_are_read_without_running_anything(tmp_path):
    path, proof = tmp_path / 'predictions.pkl', tmp_path / 'proof'
    sample = dict(scores=torch.ones(2), map=np.ones((2, 2), np.uint8), shape=(2, 2), score=np.float32(0.5))
    path.write_bytes(pickle.dumps([sample]))
    assert repr(read_predictions(path)) == repr([sample])
    loaded = dict(a=pickle.dumps([dict(a=hostile.Code(proof))]), b=b'x', c=pickle.dumps(7), d=pickle.dumps([3]), e=b'')
    storage = b'ctorch.storage\n_load_from_bytes\n(C' + bytes([len(loaded['a'])]) + loaded['a'] + b'tR.'
    for content in (*loaded.values(), storage):
        path.write_bytes(content)
        with pytest.raises(UserError, match='tools/test.py writes it'):
            read_predictions(path)
    with pytest.raises(UserError, match='is a folder; name the file of predictions that .*test.py wrote there'):
        read_predictions(tmp_path)
    assert not proof.exists()


def test_logs_of_others_are_passed_over(tmp_path):
    log = tmp_path / '1' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_bytes(b'[' * 10**5 + b'\n[1]\n7\n\xff\n{"loss": "x", "step": [1]}\n')
    fails_cleanly(tool_here('visualization/plot_curves.py', tmp_path), 'no training log')
    log.write_text(log.read_text(errors='replace') + '{"loss": 1.0, "step": {}}\n')
    assert tool_here('visualization/plot_curves.py', tmp_path).returncode == 0
