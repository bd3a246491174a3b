"""The READMEs' tables of configs are what the command writes from the metafiles."""

import shutil

import pytest

from helpers import ROOT, load_tool, tool_here


def tables(*words):
    return tool_here('analysis/readme_tables.py', *words)


def test_tables_are_what_the_metafiles_say():
    result = tables('--check')
    assert result.returncode == 0, result.stderr


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The command on a copy of the READMEs and metafiles."""
    module = load_tool('analysis/readme_tables.py')
    for name in [
        'README.md',
        *(f'{folder}/{file}' for folder in module.FOLDERS for file in ('README.md', 'metafile.yml')),
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(module, 'ROOT', tmp_path)

    def run(*words):
        monkeypatch.setattr('sys.argv', ['readme_tables.py', *words])
        module.main()

    return tmp_path, run


def test_a_changed_number_is_named_and_written(copied, capsys):
    folder, run = copied
    run('--check')
    metafile = folder / 'configs' / 'pose' / 'metafile.yml'
    metafile.write_text(metafile.read_text().replace('FLOPs: 2102733344', 'FLOPs: 9876000000'))
    with pytest.raises(SystemExit, match=r'not as the metafiles have it: configs/pose/README\.md; run python'):
        run('--check')
    readme = folder / 'configs' / 'pose' / 'README.md'
    assert '9.876' not in readme.read_text()
    run()
    assert capsys.readouterr().out == 'configs/pose/README.md: written\n'
    assert '| 9.876 |' in readme.read_text()
    run('--check')


def test_the_papers_number_is_told_from_measured_ones(copied):
    folder, _ = copied
    for page in (folder / 'README.md', folder / 'configs' / 'classification' / 'README.md'):
        (row,) = [line for line in page.read_text().splitlines() if line.startswith('|') and '81.1' in line]
        assert "81.1 (the paper's)" in row
        assert 'scopevit-tiny_8xb128-300e_in1k-256px.py' in row


def test_a_page_without_markers_is_refused(copied):
    folder, run = copied
    (folder / 'README.md').write_text('no table')
    with pytest.raises(SystemExit, match='README.md has no place for its table'):
        run()
