"""The notebook of docs/, run from top to bottom without Jupyter, on small numbers."""

import json
import re
import runpy
import sys

import pytest

from helpers import ROOT, quiet_toolboxes

NOTEBOOK = json.loads((ROOT / 'docs/tour.ipynb').read_text())
CODE = [''.join(cell['source']) for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']
SMALL = ('IMAGES, EPOCHS = 3000, 3', 'IMAGES, EPOCHS = 64, 1')


def run_tool(line, names):
    """What IPython's ``%run`` does."""
    words = re.sub(r'\{(\w+)\}', lambda found: names[found.group(1)], line).split()
    before, sys.argv = sys.argv, words
    try:
        runpy.run_path(words[0], run_name='__main__')
    finally:
        sys.argv = before


def run_cell(text, names):
    *parts, rest = re.split(r'^%run (.*)$', text, flags=re.MULTILINE)
    for code, line in zip(parts[::2], parts[1::2]):
        exec(code, names)
        run_tool(line, names)
    exec(rest, names)


def test_the_notebook_is_clean():
    assert all(not cell.get('outputs') and not cell.get('execution_count') for cell in NOTEBOOK['cells'])
    assert SMALL[0] in '\n'.join(CODE)
    text = ''.join(''.join(cell['source']) for cell in NOTEBOOK['cells'])
    links = re.findall(r'\]\(([^)]+)\)', text)
    assert len(links) > 4
    assert [link for link in links if not (ROOT / 'docs' / link).exists()] == []


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    import matplotlib.pyplot as plt

    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'docs').mkdir()
    monkeypatch.chdir(tmp_path / 'docs')
    monkeypatch.setattr(plt, 'show', lambda: None)
    plt.switch_backend('Agg')
    names = {}
    with quiet_toolboxes():
        for text in CODE:
            run_cell(text.replace(*SMALL), names)
    said = capsys.readouterr().out
    assert '(1, 256, 7, 10)' in said  # the backbone's last stage
    assert len(list(tmp_path.glob('work_dirs/tour/*/epoch_1.pth'))) == 1
    assert names['scopes'].std() > 20
    assert 'model.backbone' in said
    assert 'logits (1, 150, ' in said
    plt.close('all')
