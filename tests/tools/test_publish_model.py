"""Publishing: a slim file that loads with nothing allowed but tensors and plain data."""

import hashlib
import subprocess
import sys

import pytest
import torch

from helpers import TOY, fails_cleanly, tool_here
from scopevit.utils.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

PLAIN_LOAD = "import sys, torch; print(sorted(torch.load(sys.argv[1], weights_only=True)['meta']))"


def published(result):
    return result.stdout.split('wrote ')[1].strip()


def test_published_file_is_slim_and_plain(toy_run, toy_options, tmp_path):
    out = published(tool_here('converters/publish_model.py', toy_run / 'epoch_4.pth', tmp_path / 'toy.pth', check=True))
    with open(out, 'rb') as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert out == str(tmp_path / f'toy-{digest[:8]}.pth')
    again = tool_here(
        'converters/publish_model.py', toy_run / 'epoch_4.pth', tmp_path / 'again' / 'toy.pth', check=True
    )
    assert digest[:8] in published(again)  # the same weights, the same hash
    # A Python without our package: nothing but torch's own rules.
    result = subprocess.run([sys.executable, '-c', PLAIN_LOAD, out], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    slim, full = torch.load(out), read_checkpoint(toy_run / 'epoch_4.pth')
    assert slim.keys() == {'state_dict', 'meta'}
    assert slim['meta']['epoch'] == 4
    assert slim['meta']['dataset_meta']['classes'][0] == 'T-shirt/top'
    size = sum(v.numel() * v.element_size() for v in slim['state_dict'].values())
    assert slim['state_dict'].keys() == full['state_dict'].keys()
    assert (tmp_path / out).stat().st_size < size + 200 * len(slim['state_dict']) + 100_000
    tool_here(
        'test.py', TOY, out, '--work-dir', tmp_path / 'test', *toy_options, check=True
    )  # and it still is that model


def test_averaged_and_raw_weights(toy_options, tmp_path):
    config = tmp_path / 'ema.py'
    hook = dict(type='EMAHook', momentum=0.5, priority='ABOVE_NORMAL')
    config.write_text(f'_base_ = {str(TOY)!r}\ncustom_hooks = [{hook}]\n')
    tool_here('train.py', config, '--work-dir', tmp_path, *toy_options, 'train_cfg.max_epochs=1', check=True)
    trained = read_checkpoint(tmp_path / 'epoch_1.pth')
    key = 'head.fc.weight'
    averaged, raw = trained['state_dict'][key], trained['ema_state_dict'][f'module.{key}']
    assert not torch.equal(averaged, raw)
    for kind, expected in (('auto', averaged), ('ema', averaged), ('raw', raw)):
        words = (tmp_path / 'epoch_1.pth', tmp_path / f'{kind}.pth', '--weights', kind)
        slim = torch.load(published(tool_here('converters/publish_model.py', *words, check=True)))
        assert torch.equal(slim['state_dict'][key], expected)
        assert slim['state_dict'].keys() == trained['state_dict'].keys()


def test_names_what_is_wrong(toy_run, tmp_path):
    words = (toy_run / 'epoch_4.pth', tmp_path / 'x.pth', '--weights', 'ema')
    fails_cleanly(tool_here('converters/publish_model.py', *words), 'has no averaged weights')
    fails_cleanly(tool_here('converters/publish_model.py', 'no.pth', tmp_path / 'x.pth'), 'does not exist')
    fails_cleanly(tool_here('converters/publish_model.py', words[0], tmp_path), 'is a folder; name a file')
    assert not list(tmp_path.iterdir())


def test_safetensors_hold_the_same(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.arange(3.0)), meta=dict(epoch=2)), tmp_path / 'c.pth')
    result = tool_here('converters/publish_model.py', tmp_path / 'c.pth', tmp_path / 'out.safetensors')
    assert result.returncode == 0, result.stderr
    (published,) = tmp_path.glob('out-*.safetensors')
    read = read_checkpoint(published)
    assert torch.equal(read['state_dict']['w'], torch.arange(3.0))
    assert read['meta'] == dict(epoch=2)
