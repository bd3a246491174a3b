"""Mutations are repeatable and change one setting; how a training ended is told from its log."""

import json
import random
import subprocess
import sys

import pytest

from projects.robustness.mutate_configs import ROOT, classify, configs, keys, mutate
from scopevit.utils.config import load_config

SETTINGS = dict(model=dict(type='A', sizes=[1, 2], neck=dict(channels=4, kind=None)), test_cfg=dict(a=1))


def differences(a, b, key=()):
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for name in {*a, *b} for d in differences(a.get(name, '-'), b.get(name, '-'), (*key, name))]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (c, e) in enumerate(zip(a, b)) for d in differences(c, e, (*key, i))]
    return [] if a == b and type(a) is type(b) else [key]


@pytest.mark.parametrize('kind', ['removed', 'type', 'range'])
def test_one_setting_is_changed_and_a_seed_says_which(kind):
    for seed in range(30):
        change, settings = mutate(SETTINGS, kind, random.Random(seed))
        assert (change, settings) == mutate(SETTINGS, kind, random.Random(seed))
        (where,) = differences(SETTINGS, settings)
        assert change.startswith('.'.join(map(str, where)))
        assert settings['test_cfg'] == SETTINGS['test_cfg']  # a training does not look at it


def test_keys_of_all_depths():
    assert ('model', 'sizes', 1) in keys(SETTINGS)
    assert ('model', 'neck', 'kind') in keys(SETTINGS)


def test_configs_are_of_four_tasks():
    assert len(configs()) == 6
    scopes = {load_config(str(path)).default_scope for path in configs().values()}
    assert scopes == {'mmpretrain', 'mmdet', 'mmseg', 'mmpose'}


@pytest.mark.parametrize(
    ('status', 'path', 'function', 'end'),
    [
        (1, None, None, 'one line'),
        (1, '/env/mmengine/runner/loops.py', 'run_epoch', 'later'),
        (1, '/env/mmdet/models/necks/fpn.py', '__init__', 'building'),
        (1, f'{ROOT}/scopevit/engine/console.py', 'log_summary', 'ours'),
        (0, None, None, 'trained'),
        (-9, None, None, 'limit'),
    ],
)
def test_how_a_training_ended(status, path, function, end):
    log = 'error: model.neck is 5\n'
    if path:
        log = f'Traceback (most recent call last):\n  File "{path}", line 3, in {function}\n    x\nKeyError: 1\n'
    assert classify(status, log)['end'] == end


def test_what_ends_in_this_package_is_ours_wherever_it_began():
    frames = (('/env/mmengine/runner/loops.py', 'run_epoch'), (f'{ROOT}/scopevit/engine/saving.py', 'after_train_iter'))
    lines = [f'  File "{path}", line 3, in {function}\n    x' for path, function in frames]
    log = '\n'.join(['Traceback (most recent call last):', *lines, 'KeyError: 1'])
    assert classify(1, log)['end'] == 'ours'


@pytest.mark.slow
def test_a_case_is_not_refused_for_what_the_one_before_left(tmp_path):
    command = [sys.executable, str(ROOT / 'projects/robustness/mutate_configs.py'), '--count', '2']
    subprocess.run([*command, '--work-dir', str(tmp_path)], check=True, capture_output=True, timeout=300)
    rows = [json.loads(line) for line in (tmp_path / 'results_0.jsonl').read_text().splitlines()]
    assert [(row['end'], row['says']) for row in rows] == [('trained', '')] * 2
