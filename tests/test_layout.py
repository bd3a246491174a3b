"""What importing the package brings along."""

import subprocess
import sys

from helpers import ROOT

SCRIPT = """
import sys, scopevit
late = ('mmengine.evaluator', 'mmengine.runner', 'mmengine.hooks', 'scopevit.engine')
others = ('mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmpose', 'cv2', 'pycocotools', 'matplotlib', 'triton', 'timm')
print([name for name in sys.modules if name in late or name.split('.')[0] in others])
"""


def test_importing_the_package_loads_neither_evaluators_nor_toolboxes():
    command = [sys.executable, '-c', SCRIPT]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'


def test_files_can_be_read_at_a_sitting():
    for folder, most in (('scopevit', 400), ('scopevit/models/layers', 120), ('tools', 200)):
        for path in (ROOT / folder).rglob('*'):
            assert path.suffix not in ('.py', '.sh', '.cpp') or len(path.read_text().splitlines()) <= most, path


def test_files_of_tests_have_names_of_their_own():
    """Of two of one name pytest runs the first alone."""
    names = [path.name for folder in ('tests', 'projects') for path in (ROOT / folder).rglob('test_*.py')]
    assert sorted(names) == sorted(set(names))
