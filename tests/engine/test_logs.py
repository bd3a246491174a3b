"""Logs and curves for which there is no room, and those of a resumed training."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.visualization import LocalVisBackend, Visualizer

from scopevit.engine.logs import survive_unwritable_curves, survive_unwritable_logs, tell_iteration


def test_logs_that_cannot_be_written_are_said_once(tmp_path, capsys):
    logger = logging.Logger('unwritable')
    logger.addHandler(logging.FileHandler('/dev/full'))
    survive_unwritable_logs(logger)
    for _ in range(3):
        logger.info('a line')
    logger.info('%d', 'no number')  # a mistake in a line is still shown
    error = capsys.readouterr().err
    assert error.count('warning: /dev/full: lines are missing (No space left on device)') == 1
    assert error.count('--- Logging error ---') == 1

    (tmp_path / 'vis_data').mkdir()
    for name in ('scalars.json', 'now.json'):
        (tmp_path / 'vis_data' / name).symlink_to('/dev/full')
    visualizer = Visualizer(name='unwritable', vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    assert isinstance(visualizer.get_backend('LocalVisBackend'), LocalVisBackend)
    with pytest.raises(OSError, match='No space'):
        visualizer.add_scalars(dict(loss=1.0), 1, 'now.json')
    survive_unwritable_curves(visualizer)
    visualizer.add_scalars(dict(loss=1.0), 1, 'now.json')
    assert 'lines are missing' in capsys.readouterr().err


def test_weights_and_biases_is_told_where_a_resumed_training_validates():
    told = []
    backend = SimpleNamespace(add_scalar=lambda *scalar: told.append(scalar))
    for backends in (dict(WandbVisBackend=backend), {}):
        tell_iteration(SimpleNamespace(visualizer=SimpleNamespace(get_backend=backends.get), iter=7))
    assert told == [('iter', 7)]
