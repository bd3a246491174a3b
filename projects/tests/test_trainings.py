"""Trainings of a comparison: what is kept, refused, tried again, and left when they are interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from projects import trainings
from projects.trainings import Training, comparing, locked, machines_of, read_log, spread
from scopevit.utils.errors import UserError

# In place of tools/train.py: it logs, and saves what it was told.
SCRIPT = """
import os, pathlib, signal, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
print('starts', os.environ.get('OMP_NUM_THREADS'), flush=True)
if name == 'waits' and not (folder / 'saved').exists():
    signal.signal(signal.SIGTERM, lambda *_: ((folder / 'saved').touch(), sys.exit(143)))
    (folder / 'ready').touch()
    time.sleep(60)
while name in '01' and not (folder.parent / str(1 - int(name)) / 'output.txt').exists():
    time.sleep(0.01)
if name == 'fails':
    sys.exit('error: no luck')
log = folder / '1' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True)
log.write_text('{"loss": 1.0, "iter": 1, "time": 0.5}\\n{"step": 1}\\n')
(folder / 'epoch_1.pth').touch()
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trainings of these names, run in a folder."""
    config = tmp_path / 'config.py'
    config.write_text("model = dict(type='A')\ntrain_dataloader = dict(batch_size=2, num_workers=1)\n")
    monkeypatch.setattr(
        Training, 'command', lambda self, step: [sys.executable, '-c', SCRIPT, str(self.folder), self.name]
    )

    def of_names(*names, jobs=1, **settings):
        own = [Training(name, tmp_path / 'runs' / name, config, dict(seed=3), **settings) for name in names]
        args = Namespace(work_dir=tmp_path / 'runs', jobs=jobs)
        with comparing(args, lambda ended: dict(seconds=read_log(ended.folder).seconds), str) as trainer:
            return trainer.run(own)

    return of_names


def starts(folder, name):
    return (folder / 'runs' / name / 'output.txt').read_text().count('starts')


def test_what_is_finished_is_kept(train, tmp_path):
    (result,) = train('a')
    assert (result['seed'], result['seconds']) == (3, 0.5)
    assert result['machine']['cores'] > 0
    assert not list(tmp_path.rglob('*.pth'))
    again = train('a', 'b', 'b', keeps_checkpoints=True)
    assert again[0] == result
    assert len(again) == 3
    assert starts(tmp_path, 'a') == starts(tmp_path, 'b') == 1
    assert (tmp_path / 'runs' / 'b' / 'epoch_1.pth').exists()


def test_another_recipe_is_refused_before_anything_is_run(train, tmp_path):
    train('a')
    checkpoint, config = tmp_path / 'weights.pth', tmp_path / 'config.py'
    checkpoint.write_bytes(b'weights')
    for changed, settings in (
        ('train_cfg.max_epochs', dict(options=('train_cfg.max_epochs=2',))),
        ('arguments', dict(words=('--amp',))),
        ('processes', dict(processes=2)),
        ('weights', dict(pretrained=str(checkpoint))),
    ):
        with pytest.raises(UserError, match=rf'runs/a is of another recipe \({changed}\): choose another --work-dir'):
            train('b', 'a', **settings)
    config.write_text(config.read_text().replace('num_workers=1', 'num_workers=4'))
    assert len(train('a')) == 1
    config.write_text(config.read_text().replace("'A'", "'B'"))
    with pytest.raises(UserError, match=r'of another recipe \(model.type\)'):
        train('a')
    (tmp_path / 'runs' / 'c').mkdir()
    (tmp_path / 'runs' / 'c' / 'last_checkpoint').touch()  # of which recipe, it does not say
    with pytest.raises(UserError, match='runs/c is of another recipe'):
        train('b', 'c')
    assert not (tmp_path / 'runs' / 'b').exists()


def test_one_that_fails_is_named_with_its_output_and_tried_again(train, tmp_path, capsys):
    for count in (1, 2):
        with pytest.raises(UserError, match='^fails: the training failed; see .*fails/output.txt .error: no luck.$'):
            train('fails', 'b')
        assert starts(tmp_path, 'fails') == count
    assert starts(tmp_path, 'b') == 1
    assert 'fails ... failed\nb ... {' in capsys.readouterr().out


def test_one_that_logged_nothing_has_failed(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, 'command', lambda self, step: [sys.executable, '-c', ''])
    own = Training('a', tmp_path / 'a', tmp_path / 'config.py', {})
    with (
        pytest.raises(UserError, match='a/output.txt .its log lacks what is measured'),
        comparing(Namespace(work_dir=tmp_path), lambda ended: None, str) as trainer,
    ):
        assert trainer.run([own]) == []


@pytest.mark.parametrize(('number', 'ends'), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_a_training_that_goes_on_later(train, tmp_path, number, ends):
    def tell():
        end = time.monotonic() + 60
        while not (tmp_path / 'runs' / 'waits' / 'ready').exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(ends):
        train('waits', 'b')
    assert signal.getsignal(number) is before
    assert (tmp_path / 'runs' / 'waits' / 'saved').exists()
    assert not (tmp_path / 'runs' / 'b').exists()
    assert len(train('waits', 'b')) == 2


def test_several_at_a_time_share_the_cores(train, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, 'usable_cores', lambda: 6)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    train('0', '1', jobs=2)  # each waits for the other
    assert (tmp_path / 'runs' / '0' / 'output.txt').read_text() == 'starts 3\n'


def test_commands_of_training_and_test(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('epoch_2.pth')
    one = Training('a', tmp_path, Path('c.py'), dict(seed=1), options=('b=1',), words=('--amp',), pretrained='p.pth')
    words = ['c.py', '--work-dir', str(tmp_path), '--seed', '1', '--resume', '--amp', '--pretrained', 'p.pth']
    assert one.command('train') == [sys.executable, 'tools/train.py', *words, '--cfg-options', 'b=1']
    two = replace(one, options=(), processes=2)
    assert two.command('train')[:4] == ['bash', 'tools/dist_train.sh', 'c.py', '2']
    words = ['c.py', 'epoch_2.pth', '2', '--work-dir', str(tmp_path / 'test')]
    assert two.command('test') == ['bash', 'tools/dist_test.sh', *words]


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UserError, match='still runs'), locked(tmp_path):
            pass
        # Who trains there holds the lock, even if it outlives the process that started it.
        left = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, close_fds=False)
    with pytest.raises(UserError, match='still runs'), locked(tmp_path):
        pass
    left.communicate(b'\n')
    with locked(tmp_path):
        pass


def test_log_of_a_training_that_was_killed(tmp_path):
    starts = (
        [dict(loss=2.0, iter=1, time=1.0), dict(loss=math.nan, iter=2, time=9.0), dict(mIoU=30.0, step=1)],
        [dict(loss=1.0, iter=2, time=3.0), dict(mIoU=50.0, step=2)],
    )
    for i, lines in enumerate(starts):
        file = tmp_path / str(i) / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(map(json.dumps, lines)) + '\n{"mIo')
    log = read_log(tmp_path)
    assert [(i, step['loss']) for i, step in log.steps.items()] == [(1, 2.0), (2, 1.0)]
    assert [line['mIoU'] for line in log.validations] == [30.0, 50.0]
    assert log.seconds == 4


def test_one_value_has_no_spread():
    assert [spread(values) for values in ([], [3.0], [3.0, 4.0])] == ['', '3.0', '3.5 (3.0..4.0)']


def test_days_and_commits_of_all_trainings_on_a_machine():
    machine = dict(device='CPU', cpu='X', threads=2, cores=2, torch='2', capability='none', load=0.0)
    first = dict(machine, date='2026-11-23', commit='aaa')
    results = [dict(machine=first), dict(machine=dict(machine, date='2026-11-25', commit='bbb'))]
    text = '2026-11-23 to 2026-11-25, CPU: 2 threads on 2 cores of X (none); torch 2, commit aaa, bbb.'
    assert machines_of(results) == text
    assert machines_of([*results, dict(machine=dict(first, cpu='Y'))]).count('\n\n') == 1
