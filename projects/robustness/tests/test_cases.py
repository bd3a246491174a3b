"""Cases are run once, and an interrupted run goes on."""

import json

import pytest

from projects.robustness.cases import run_cases


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, capsys):
    ran = []

    def run(number):
        if number == 2 and len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(number)
        return dict(number=number, end='trained')

    results = tmp_path / 'results.jsonl'
    with pytest.raises(KeyboardInterrupt):
        run_cases(results, 4, run, lambda row: row['end'])
    ran.append('again')
    rows = run_cases(results, 4, run, lambda row: row['end'])
    assert ran == [0, 1, 'again', 2, 3]
    assert [row['number'] for row in rows] == [0, 1, 2, 3]
    assert [json.loads(line) for line in results.read_text().splitlines()] == rows
    assert len(run_cases(results, 3, run, lambda row: row['end'])) == 3  # of a file with more
    assert capsys.readouterr().out.splitlines()[-1] == '[4/4] trained'
