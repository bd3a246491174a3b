"""A bug in a module of the user's own shows its file and line, whichever tool imports or builds it."""

import sys

import pytest
import torch
from mmengine.config import Config

from helpers import TOY, fails_cleanly, tool_here, write_image
from scopevit.apis.model import build_model

WORDS = {
    'train.py': [],
    'test.py': ['checkpoint.pth'],
    'predict.py': ['checkpoint.pth', 'image.jpg', '--out-dir', 'predictions'],
    'analysis/benchmark.py': [],
    'swap_backbone.py': [],
}
BACKBONE = """
from mmpretrain.registry import MODELS
from torch import nn

class {name}(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(1, width, 3)
        self.other = width.no_such_thing

MODELS.register_module(module={name}, force=True)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module and a config that imports it; runs a tool with that."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write_image(tmp_path / 'image.jpg')
    (tmp_path / 'checkpoint.pth').touch()  # which no tool reads before the model is built
    names = []

    def run(tool, module, settings=''):
        name = f'own_module_{len(names)}_{tmp_path.name}'
        names.append(name)
        (tmp_path / f'{name}.py').write_text(module)
        config = tmp_path / 'own.py'
        config.write_text(f'_base_ = {str(TOY)!r}\n\ncustom_imports = dict(imports=[{name!r}])\n{settings}\n')
        result = tool_here(tool, config, *WORDS[tool], cwd=tmp_path)
        result.module = tmp_path / f'{name}.py'
        return result

    yield run
    for name in names:
        sys.modules.pop(name, None)


def ends_in(result, path, line, error):
    """The traceback of an error that ends in this line of a file."""
    assert result.returncode != 0
    frames = [words for words in result.stderr.splitlines() if words.lstrip().startswith('File "')]
    assert f'File "{path}", line {line}, in ' in frames[-1], result.stderr[-3000:]
    assert result.stderr.splitlines()[-1].startswith(error), result.stderr[-3000:]


@pytest.mark.parametrize('tool', WORDS)
def test_bug_in_an_imported_module(tool, own):
    result = own(tool, 'x = 1\n\ny = x.no_such_thing\n')
    ends_in(result, result.module, 3, "AttributeError: 'int' object has no attribute 'no_such_thing'")


@pytest.mark.parametrize('tool', WORDS)
def test_bug_in_a_backbone_of_ones_own(tool, own):
    name = f'Own{list(WORDS).index(tool)}'
    settings = f"model = dict(backbone=dict(_delete_=True, type='{name}', width=8))"
    result = own(tool, BACKBONE.format(name=name), settings)
    ends_in(result, result.module, 9, "AttributeError: 'int' object has no attribute 'no_such_thing'")


def test_bug_in_a_neck_that_a_swap_meets(own):
    module = """
from mmengine.registry import MODELS
from torch import nn

class OwnNeck(nn.Module):
    def forward(self, maps):
        return maps.no_such_thing

MODELS.register_module(module=OwnNeck, force=True)
"""
    result = own('swap_backbone.py', module, "model = dict(neck=dict(_delete_=True, type='OwnNeck'))")
    assert f'File "{result.module}", line 7, in forward' in result.stderr, result.stderr[-3000:]
    assert result.stderr.splitlines()[-1].startswith('error: the backbone cannot be replaced')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
@pytest.mark.parametrize(
    ('bug', 'error'),
    [
        ('runner.no_such_thing', "AttributeError: 'QuietRunner' object has no attribute 'no_such_thing'"),
        ('len(7)', "TypeError: object of type 'int' has no len()"),
    ],
)
def test_bug_in_a_hook_that_runs_on_sound_data(tool, bug, error, own, fashion_mnist, tmp_path):
    module = f"""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

class OwnHook(Hook):
    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        {bug}

HOOKS.register_module(module=OwnHook, force=True)
"""
    torch.save(build_model(Config.fromfile(TOY)).state_dict(), tmp_path / 'checkpoint.pth')
    data = f'data = dict(dataset=dict(data_root={str(fashion_mnist)!r}))\n'
    data += 'train_dataloader = val_dataloader = test_dataloader = data\n'
    result = own(tool, module, data + "custom_hooks = [dict(type='OwnHook')]")
    ends_in(result, result.module, 7, error)


def test_import_that_fails_within_an_imported_module(own):
    result = own('train.py', 'import os\nimport not_there_at_all\n')
    ends_in(result, result.module, 2, "ModuleNotFoundError: No module named 'not_there_at_all'")


def test_what_a_module_tells_the_user_stays_one_line(own):
    refusal = 'from scopevit.utils.errors import UserError\nraise UserError("download the vocabulary first")\n'
    fails_cleanly(own('train.py', refusal), 'error: download the vocabulary first')


def test_wrong_syntax_of_an_imported_module_is_one_line(own):
    result = own('train.py', 'x = 1\ndef broken(:\n')
    fails_cleanly(result, f'{result.module}, line 2: SyntaxError')


def test_bug_in_the_config_itself(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text('a = 1\nb = undefined + 1\n')
    ends_in(tool_here('train.py', config, cwd=tmp_path), config, 2, "NameError: name 'undefined' is not defined")
