"""The sweep over all configs of the toolboxes: resuming, what kills a process, and the committed table."""

import json
import os
import time
from types import SimpleNamespace

import pytest

from helpers import ROOT, fails_cleanly, load_tool, tool_here

PROJECT = ROOT / 'projects' / 'zoo_sweep'
SWEEP, TABLE = PROJECT / 'zoo_sweep.py', PROJECT / 'results.csv'


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The sweep over four made-up configs, with a table of its own; it notes in a file what it examines."""
    module = load_tool(SWEEP)
    (tmp_path / 'results.csv').write_text('precious')
    names = [f'mmdet/{letter}.py' for letter in 'abcd']

    def examine(name, path, arch, known):
        with open(tmp_path / 'examined.txt', 'a') as file:
            file.write(f'{name}\n')
        return dict(status='works', reason='', way='channels')

    monkeypatch.setattr(module, 'FOLDER', tmp_path)
    monkeypatch.setattr(module, 'all_configs', lambda: {name: f'/nowhere/{name}' for name in names})
    monkeypatch.setattr(module, 'examine', examine)
    monkeypatch.setattr(module, 'importlib', SimpleNamespace(import_module=lambda name: None))
    monkeypatch.setattr(module.torch, 'set_num_threads', lambda count: None)

    def run(*words):
        monkeypatch.setattr('sys.argv', ['zoo_sweep.py', '--results', str(tmp_path / 'rows.jsonl'), *words])
        module.main()

    module.run, module.names, module.examined = run, names, tmp_path / 'examined.txt'
    return module


def test_a_sweep_in_parts_runs_each_config_once_and_makes_the_table(zoo, capsys):
    zoo.run('--only', '*/[ab].py')
    assert sorted(zoo.examined.read_text().split()) == zoo.names[:2]
    with pytest.raises(SystemExit, match='error: 2 configs have no result, among them mmdet/c.py'):
        zoo.run('--write-table')
    assert (zoo.FOLDER / 'results.csv').read_text() == 'precious'
    zoo.run()
    zoo.run()
    assert sorted(zoo.examined.read_text().split()) == zoo.names
    zoo.run('--write-table')
    assert list(zoo.read_table()) == zoo.names
    assert '| works | 4 | 0 | 0 | 0 | 4 |' in capsys.readouterr().out


def test_some_rows_of_the_table_can_be_run_again(zoo):
    rows = [f'{name},{status},,,why' for name, status in zip(zoo.names, ('works', 'refused', 'refused', 'works'))]
    (zoo.FOLDER / 'results.csv').write_text('\n'.join([','.join(zoo.COLUMNS), *rows]))
    zoo.run('--from-table', '--again', 'refused', '--only', '*/[a-b].py')
    assert zoo.examined.read_text().split() == ['mmdet/b.py']
    zoo.run('--from-table', '--write-table')
    assert [row['status'] for row in zoo.read_table().values()] == ['works', 'works', 'refused', 'works']


def test_a_config_that_blocks_or_kills_the_process_fails_and_the_others_go_on(zoo, monkeypatch):
    def examine(name, path, arch, known):
        if name == 'mmdet/a.py':
            os._exit(1)
        if name == 'mmdet/b.py':
            time.sleep(60)
        if name == 'mmdet/c.py':
            raise ValueError('a list longer than 3 s and more')  # as another failure may well say
        return dict(status='works', reason='', way='')

    monkeypatch.setattr(zoo, 'examine', examine)
    zoo.run('--timeout', '2')
    rows = [json.loads(line) for line in (zoo.FOLDER / 'rows.jsonl').read_text().splitlines()]
    assert sorted(row['name'] for row in rows) == zoo.names  # each once
    found = {row['name'][6]: (row['status'], row['reason']) for row in rows}
    assert found['a'] == ('failed', 'the process died')
    assert found['b'] == ('failed', 'longer than 2 s')
    assert found['c'][0] == 'failed'
    assert 'a list longer than 3 s and more' in found['c'][1]
    assert found['d'] == ('works', '')


def test_share_counts_what_does_not_train_against_it(zoo):
    statuses = dict(works=6, refused=1, untrained=2, failed=1, excluded=5, original=5, fragment=5)
    rows = {f'mmseg/{s}{i}.py': dict(status=s) for s, count in statuses.items() for i in range(count)}
    lines = zoo.summary(rows).splitlines()
    assert '| denominator | 0 | 0 | 0 | 10 | 10 |' in lines
    assert lines[-1] == '| works | 0.0 % | 0.0 % | 0.0 % | 60.0 % | 60.0 % |'


def test_table_is_of_all_configs_and_the_page_says_what_it_counts():
    module = load_tool(SWEEP)
    rows = module.read_table()
    assert set(rows) == set(module.all_configs())
    statuses = [row['status'] for row in rows.values()]
    counted = [status for status in statuses if status in ('works', 'refused', 'untrained', 'failed')]
    assert statuses.count('failed') == 0
    assert statuses.count('works') >= 0.95 * len(counted)
    page = (PROJECT / 'README.md').read_text()
    assert module.summary(rows) in page
    for status in module.STATUSES:
        assert f'\n- {status}: ' in page


def test_the_table_is_never_replaced_by_a_part_of_it(tmp_path):
    before = TABLE.read_bytes()
    result = tool_here(SWEEP, '--write-table', '--results', tmp_path / 'none.jsonl')
    fails_cleanly(result, 'configs have no result', '--from-table')
    assert TABLE.read_bytes() == before
