"""The comparison: its rows, what it keeps, and what it writes."""

import json
import sys

import pytest
from mmengine.config import Config

from projects.human_mesh import compare
from projects.human_mesh.compare import PROJECT, ROWS, constants, measured, page, parse_args, table, training
from projects.trainings import Trainer
from scopevit.apis.model import build_model
from scopevit.utils.errors import UserError

CONSTANTS = {'mean pose and shape': {'MPJPE': 300.0, 'PA-MPJPE': 140.0, 'PVE': 280.0}}
MACHINE = dict(device='CPU', cpu='X', threads=1, cores=2, torch='2', date='2026-11-27', capability='none', load=1.0)


def parse(*words):
    return parse_args([str(word) for word in ('--epochs', 2, *words)])


def test_rows_differ_in_what_they_are_named_for():
    configs = {name: Config.fromfile(PROJECT / 'configs' / config) for name, (_, config, _) in ROWS.items()}
    assert configs['frozen'].to_dict() == configs['all'].to_dict()
    cfg = configs['frozen'].copy()
    cfg.merge_from_dict(dict(option.split('=') for option in ROWS['frozen'][2]))
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


def test_metrics_after_the_last_epoch_and_the_time_of_all_iterations(tmp_path):
    scalars = tmp_path / '1' / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    lines = [dict(loss=1.0, iter=10, time=0.5), dict(loss=1.0, iter=20, time=0.7)]
    lines += [
        {'body/MPJPE': 900.0 / epoch, 'body/PA-MPJPE': 60.0, 'body/PVE': 110.0, 'step': epoch} for epoch in (1, 2)
    ]
    scalars.write_text('\n'.join(map(json.dumps, lines)))
    assert measured(tmp_path, 2) == {'MPJPE': 450.0, 'PA-MPJPE': 60.0, 'PVE': 110.0, 'seconds': pytest.approx(12)}
    assert measured(tmp_path, 3) is None


def test_results_are_written_as_they_come(monkeypatch, tmp_path):
    def run(trainer, trainings, after):
        errors = {'MPJPE': 100.0, 'PA-MPJPE': 60.0, 'PVE': 110.0, 'seconds': 12.0}
        results = [dict(**own.facts, **errors, machine=MACHINE) for own in trainings]
        results[-1]['MPJPE'] += 1
        after(results[:1])
        assert '| all labels | 100.0 | 60.0 | 110.0 | 1 | 0.2 |' in table_file.read_text()
        return results

    table_file, json_file = tmp_path / 'table.md', tmp_path / 'results.json'
    monkeypatch.setattr(Trainer, 'run', run)
    monkeypatch.setattr(compare, 'constants', lambda count: CONSTANTS)
    words = ('--rows', 'all', '--seeds', 2, '--work-dir', tmp_path / 'runs', '--table', table_file, '--json', json_file)
    compare.compare(parse(*words))
    results = json.loads(json_file.read_text())
    assert results['constants'] == CONSTANTS
    assert [(r['row'], r['seed'], r['MPJPE']) for r in results['results']] == [('all', 0, 100.0), ('all', 1, 101.0)]
    text = table_file.read_text()
    assert '| mean pose and shape | 300.0 | 140.0 | 280.0 |  |  |' in text
    assert '| all labels | 100.5 (100.0..101.0) | 60.0 (60.0..60.0) | 110.0 (110.0..110.0) | 2 | 0.2 |' in text
    assert '2026-11-27, CPU' in text
    assert 'load' not in text


def test_a_training_goes_on_where_it_stopped_and_has_its_rows_options():
    own = training('frozen', 1, parse('--count', 500, '--processes', 1))
    command = own.command('train')
    assert command[1].endswith('dist_train.sh')
    assert '--resume' in command
    assert command[command.index('--seed') + 1] == '1'
    for option in ('model.backbone.frozen_stages=4', 'train_dataloader.dataset.count=500', 'train_cfg.max_epochs=2'):
        assert option in command


def test_another_recipe_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    words = ('--rows', 'keypoints', 'all', '--work-dir', tmp_path / 'runs')
    training('all', 0, parse(*words, '--count', 77)).note(None)
    monkeypatch.setattr(compare, 'constants', None)
    for others in ((), ('--count', 77, '--processes', 1)):
        with pytest.raises(UserError, match='all/seed_0 is of another recipe'):
            compare.compare(parse(*words, *others))


def test_the_table_begins_with_the_baselines():
    assert table([], CONSTANTS).count('\n') == 3


def test_the_page_says_how_it_was_made(monkeypatch):
    words = ['--seeds', '2', '--count', '1500', '--table', 'out of here.md']
    monkeypatch.setattr(sys, 'argv', ['compare.py', *words])
    text = page([], CONSTANTS, parse_args(words))
    assert '1,500 training images, 6 epochs, 2 processes; 1,000 held-out bodies' in text
    assert "`python projects/human_mesh/compare.py --seeds 2 --count 1500 --table 'out of here.md'`" in text
