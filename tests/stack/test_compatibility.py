"""What MMEngine is told of this package and of newer Pythons."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
from mmengine.utils.dl_utils.misc import mmcv_full_available

from helpers import fails_cleanly, tool_here
from scopevit.stack import compatibility
from scopevit.utils.config import load_config

CONFIG = 'scopevit::classification/scopevit-tiny_8xb128-300e_in1k-256px.py'


def test_python_314_has_no_find_loader(monkeypatch):
    """MMEngine's optimizer constructor asks for it."""
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    with pytest.raises(AttributeError):
        mmcv_full_available()
    importlib.reload(compatibility)
    assert mmcv_full_available()


def test_configs_of_this_package_have_a_name():
    cfg = load_config(CONFIG)
    assert cfg.model.backbone.arch == 'tiny'


def test_a_name_that_is_not_there_is_answered_with_close_ones(tmp_path):
    result = tool_here('analysis/get_flops.py', CONFIG.replace('tiny', 'teeny'), cwd=tmp_path)
    fails_cleanly(result, f'does not exist; did you mean {CONFIG}')


SCRIPT = """
from importlib import metadata
from types import SimpleNamespace
import importlib_metadata
find, tell = importlib_metadata.distribution, metadata.version
transformers = SimpleNamespace(version={version!r})
importlib_metadata.distribution = lambda name: transformers if name == 'transformers' else find(name)
metadata.version = lambda name: transformers.version if name == 'transformers' else tell(name)
import scopevit, mmpretrain.models
from mmpretrain.utils.dependency import WITH_MULTIMODAL
print(WITH_MULTIMODAL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('version', 'imports'), [('4.57.0', False), ('5.17.0', True)])
def test_mmpretrain_beside_transformers_5(version, imports):
    """mmpretrain takes names that are gone; without the package, as here, so is what version 4 would have."""
    result = subprocess.run([sys.executable, '-c', SCRIPT.format(version=version)], capture_output=True, text=True)
    assert (result.stdout.split()[-1:] == ['False']) == imports, result.stderr[-2000:]
    assert ("No module named 'transformers'" in result.stderr) != imports
