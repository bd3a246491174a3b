"""The tool for trying a model in the browser, without gradio; with it: demo_in_browser.py."""

import shlex
import socket
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from helpers import ROOT, fails_cleanly, load_tool, tool_here
from scopevit.analysis import demo_page


@pytest.fixture
def gradio(monkeypatch):
    """Stands for an installed gradio."""
    module = ModuleType('gradio')
    module.__spec__ = ModuleSpec('gradio', None)
    monkeypatch.setitem(sys.modules, 'gradio', module)


def test_without_gradio_it_says_what_to_install(models, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    fails_cleanly(tool_here('demo.py', *models['detection']), "not installed: pip install 'gradio>=6,<7'")
    lines = (ROOT / 'requirements/optional/demo.txt').read_text().splitlines()
    assert shlex.split(load_tool('demo.py').NEEDED) == [line.split(' ')[0] for line in lines if line[0] != '#']


def test_wrong_arguments_are_one_error_before_anything_is_served(models, gradio):
    detection, pose = models['detection'], models['pose']
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        fails_cleanly(tool_here('demo.py', *detection, '--port', port), f'--port {port} (Address already in use)')
    fails_cleanly(tool_here('demo.py', *detection, '--port', 70000), '--port 70000', 'choose others')
    fails_cleanly(tool_here('demo.py', detection[0], 'nowhere.pth'), 'nowhere.pth')
    fails_cleanly(tool_here('demo.py', *pose, '--detector-config', detection[0]), 'needs both --detector-config and')
    detector = ['--detector-config', detection[0], '--detector-checkpoint', detection[1]]
    fails_cleanly(tool_here('demo.py', *detection, *detector), 'this model needs none')


def test_the_page_is_served_to_this_machine_with_the_model_that_was_named(models, gradio, monkeypatch):
    served = []
    words = ['demo.py', *models['pose'], '--device', 'cpu', '--score-thr', '0.2']
    words += ['--detector-config', models['detection'][0], '--detector-checkpoint', models['detection'][1]]
    monkeypatch.setattr(demo_page, 'serve', lambda *args: served.append(args))
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    load_tool('demo.py').main()
    ((demo, title, host, port),) = served
    assert (title, host, port) == ('pose, pose.pth, on cpu', '127.0.0.1', None)
    assert demo.predictor.score_thr == 0.2
    assert demo.predictor.find_boxes
