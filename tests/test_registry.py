"""Both names build under every toolbox's default scope, the prefixed one without custom_imports."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
import mmengine, importlib
scope = sys.argv[1]
registry = importlib.import_module(f'{scope}.registry').MODELS
with DefaultScope.overwrite_default_scope(scope):
    assert 'scopevit' not in sys.modules
    for models in (MODELS, registry):
        model = models.build(dict(type='scopevit.ScopeViT', arch='xtiny', out_indices=(0, 1, 2, 3)))
        assert model.feature_channels == (32, 64, 128, 256)
    Config.fromstring("custom_imports = dict(imports=['scopevit'], allow_failed_imports=False)", '.py')
    for models in (MODELS, registry):
        assert type(models.build(dict(type='ScopeViT', arch='xtiny'))) is type(model)
"""

BARE = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
with DefaultScope.overwrite_default_scope(sys.argv[1]):
    Config.fromstring("custom_imports = dict(imports=['scopevit'], allow_failed_imports=False)", '.py')
    MODELS.build(dict(type='ScopeViT', arch='xtiny'))
"""


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg', 'mmpose'])
@pytest.mark.parametrize('script', [SCRIPT, BARE], ids=['prefixed_first', 'bare_first'])
def test_builds_under_default_scope(scope, script):
    result = subprocess.run([sys.executable, '-c', script, scope], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
