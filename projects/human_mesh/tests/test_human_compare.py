"""The comparison: its rows, what it keeps, and what it writes."""

import json
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.human_mesh import compare
from projects.human_mesh.compare import ROWS, constants, page, parse_args, spread, table
from scopevit.apis.model import build_model
from scopevit.utils.errors import UserError

CONSTANTS = {'mean pose and shape': {'MPJPE': 300.0, 'PA-MPJPE': 140.0, 'PVE': 280.0}}
MACHINE = dict(device='CPU', cpu='X', threads=1, cores=2, torch='2', date='2026-11-27', capability='none', load=1.0)


@pytest.fixture
def trainings(monkeypatch, tmp_path):
    """The commands that were asked for; in place of a training a log is written, unless its row is named to fail."""
    asked = []

    class Process:
        fails = ''

        def __init__(self, command, **options):
            self.folder = Path(command[command.index('--work-dir') + 1])
            asked.append(command)

        def wait(self):
            if Process.fails and Process.fails in self.folder.parts:
                return 1
            scalars = self.folder / '1' / 'vis_data' / 'scalars.json'
            scalars.parent.mkdir(parents=True, exist_ok=True)
            lines = [dict(loss=1.0, iter=10, time=0.5), dict(loss=1.0, iter=20, time=0.7)]
            seed = int(self.folder.name[-1])
            lines += [{'body/MPJPE': 900.0, 'body/PA-MPJPE': 90.0, 'body/PVE': 950.0, 'step': 1}]
            lines += [{'body/MPJPE': 100.0 + seed, 'body/PA-MPJPE': 60.0, 'body/PVE': 110.0, 'step': 2}]
            scalars.write_text(''.join(json.dumps(line) + '\n' for line in lines))
            return 0

        def terminate(self):
            pass

    monkeypatch.setattr(compare.subprocess, 'Popen', Process)
    monkeypatch.setattr(compare, 'constants', lambda count: CONSTANTS)
    monkeypatch.setattr(compare, 'describe_machine', lambda device: MACHINE)

    def parse(*words):
        return parse_args([str(word) for word in ('--work-dir', tmp_path / 'runs', '--epochs', 2, *words)])

    return asked, Process, parse


def test_rows_differ_in_what_they_are_named_for():
    configs = {name: Config.fromfile(row.config) for name, row in ROWS.items()}
    assert configs['frozen'].to_dict() == configs['all'].to_dict()
    cfg = configs['frozen'].copy()
    cfg.merge_from_dict(dict(option.split('=') for option in ROWS['frozen'].options))
    cfg.model.backbone.frozen_stages = int(cfg.model.backbone.frozen_stages)
    model = build_model(cfg).train()
    assert not [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert all(p.requires_grad for p in model.head.parameters())
    assert not any(module.training for module in model.backbone.modules() if 'BatchNorm' in type(module).__name__)


def test_constants_are_the_errors_of_bodies_that_do_not_look_at_the_image():
    found = constants(40, train_count=100)
    pose, mean = found['mean pose and shape'], found['mean vertices and joints']
    assert 200 < mean['MPJPE'] < pose['MPJPE'] < 400  # the mean of joints is the nearest to all of them
    assert 80 < pose['PA-MPJPE'] < pose['MPJPE']
    assert constants(40, train_count=100) == found


def test_finished_trainings_are_kept_and_others_tried_again(trainings, tmp_path):
    asked, process, parse = trainings
    out = tmp_path / 'table.md', tmp_path / 'results.json'
    args = parse('--rows', 'frozen', 'all', '--seeds', 2, '--table', out[0], '--json', out[1])
    process.fails = 'all'
    with pytest.raises(UserError, match='all labels, seed 0: the training failed; see .*output.txt'):
        compare.compare(args)
    assert len(asked) == 2
    process.fails = ''
    compare.compare(args)
    assert len(asked) == 5  # the finished one was not repeated
    compare.compare(args)
    assert len(asked) == 5
    results = json.loads(out[1].read_text())
    assert results['constants'] == CONSTANTS
    assert [(r['row'], r['seed'], r['MPJPE']) for r in results['results']] == [
        ('frozen', 0, 100.0),
        ('all', 0, 100.0),
        ('frozen', 1, 101.0),
        ('all', 1, 101.0),
    ]
    text = out[0].read_text()
    assert '| mean pose and shape | 300.0 | 140.0 | 280.0 |  |  |' in text
    assert '| all labels | 100.5 (100.0..101.0) | 60.0 (60.0..60.0) | 110.0 (110.0..110.0) | 2 | 0.2 |' in text
    assert '2026-11-27, CPU' in text
    assert 'load' not in text


def test_a_training_goes_on_where_it_stopped_and_has_its_rows_options(trainings):
    asked, _, parse = trainings
    compare.train('frozen', 1, parse('--count', 500, '--processes', 1))
    (command,) = asked
    assert command[1].endswith('dist_train.sh')
    assert '--resume' in command
    assert command[command.index('--seed') + 1] == '1'
    for option in ('model.backbone.frozen_stages=4', 'train_dataloader.dataset.count=500', 'train_cfg.max_epochs=2'):
        assert option in command


def test_results_of_another_recipe_are_refused(trainings):
    _, _, parse = trainings
    compare.train('all', 0, parse())
    with pytest.raises(UserError, match='is of another recipe: choose another --work-dir'):
        compare.train('all', 0, parse('--count', 77))


def test_a_training_that_was_broken_off_goes_on_by_its_own_recipe_alone(trainings, tmp_path, monkeypatch):
    asked, process, parse = trainings
    process.fails = 'all'
    with pytest.raises(UserError, match='the training failed'):
        compare.train('all', 0, parse('--count', 77))
    process.fails = ''
    monkeypatch.setattr(compare, 'constants', None)  # it is refused before anything is computed
    for words in ((), ('--count', 77, '--processes', 1)):
        with pytest.raises(UserError, match='seed_0 is of another recipe: choose another --work-dir'):
            compare.compare(parse('--rows', 'keypoints', 'all', *words))
    assert len(asked) == 1
    compare.train('all', 0, parse('--count', 77))
    assert len(asked) == 2
    # A folder that does not say what it is of.
    (tmp_path / 'runs' / 'all' / 'seed_1').mkdir()
    (tmp_path / 'runs' / 'all' / 'seed_1' / 'last_checkpoint').write_text('epoch_1.pth')
    with pytest.raises(UserError, match='seed_1 is of another recipe'):
        compare.train('all', 1, parse('--count', 77))


def test_one_seed_has_no_spread():
    assert spread([3.0]) == '3.0'
    assert spread([3.0, 4.0]) == '3.5 (3.0..4.0)'
    assert table([], CONSTANTS).count('\n') == 3


def test_the_page_says_how_it_was_made(monkeypatch):
    words = ['--seeds', '2', '--count', '1500', '--table', 'out of here.md']
    monkeypatch.setattr(sys, 'argv', ['compare.py', *words])
    text = page([], CONSTANTS, parse_args(words))
    assert '1,500 training images, 6 epochs, 2 processes; 1,000 held-out bodies' in text
    assert "`python projects/human_mesh/compare.py --seeds 2 --count 1500 --table 'out of here.md'`" in text
