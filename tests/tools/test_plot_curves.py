"""Curves of runs, and figures of predictions."""

import json
import re

import cv2
import pytest

from helpers import TOY, fails_cleanly, tool_here


@pytest.mark.slow
def test_figures(toy_run, toy_options, fashion_mnist, tmp_path):
    tool_here('visualization/plot_curves.py', toy_run, '--out', tmp_path / 'curves.png', check=True)
    tool_here('test.py', TOY, toy_run / 'epoch_4.pth', '--work-dir', tmp_path, *toy_options, check=True)
    config = toy_run / 'toy_classifier.py'  # as it was run, with its data root
    predictions = tmp_path / 'predictions.pkl'
    tool_here('visualization/draw_predictions.py', config, predictions, '--out', tmp_path / 'p.png', check=True)
    result = tool_here('analysis/analyze_predictions.py', config, predictions)
    assert 'the worst 5 of 10 classes by F1' in result.stdout, result.stderr
    for name in ('curves.png', 'p.png', 'analysis/worst.jpg'):
        figure = cv2.imread(str(tmp_path / name))
        assert min(figure.shape[:2]) > 300
        assert figure.std() > 10  # something was drawn

    result = tool_here('visualization/draw_predictions.py', config, tmp_path / 'no.pkl')
    fails_cleanly(result, 'no.pkl does not exist')
    fails_cleanly(tool_here('analysis/analyze_predictions.py', config, tmp_path / 'no.pkl'), 'no.pkl does not exist')


def write_log(folder, lines):
    """A run's log as MMEngine writes it."""
    path = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)))
    return folder


def texts(path):
    """What stands in a figure of matplotlib's, an SVG."""
    return re.findall(r'<!-- (.*?) -->', path.read_text())


def test_runs_are_compared_by_their_names_with_rates_and_an_axis_that_says_what_it_counts(tmp_path):
    curves, out = 'visualization/plot_curves.py', tmp_path / 'c.svg'
    by_epoch = [
        dict(lr=0.1, loss=2.0, loss_cls=1.0, epoch=1, iter=10, step=10),
        dict(mIoU=20.5, mAcc=1.0, step=1),
        dict(lr=0.1, loss=1.0, loss_cls=1.0, epoch=2, iter=20, step=20),
        dict(mIoU=30.5, mAcc=2.0, step=2),
    ]
    by_iteration = [dict(lr=0.2, loss=3.0, iter=30, step=30), dict(mIoU=40.5, step=30)]
    one, two = (write_log(tmp_path / name / 'seed0', by_epoch) for name in ('small', 'large'))
    three = write_log(tmp_path / 'long' / 'seed0', by_iteration)

    assert tool_here(curves, one, '--out', out).returncode == 0
    assert {'training loss', 'loss_cls', 'learning rate', 'mIoU', 'mAcc', 'epoch', '30.5'} <= set(texts(out))
    assert tool_here(curves, one, two, '--metrics', 'mIoU', '--out', out).returncode == 0
    assert {'small', 'large', 'epoch', 'mIoU'} <= set(texts(out))
    assert not {'mAcc', 'loss_cls', 'seed0'} & set(texts(out))
    assert tool_here(curves, one, three, '--out', out).returncode == 0
    assert 'epoch' not in texts(out)  # validated after different counts: both by iterations
    brief = write_log(tmp_path / 'brief', by_epoch[:2])
    assert tool_here(curves, brief, '--out', out).returncode == 0
    assert '1' in texts(out)  # of one epoch no parts are marked on the axis

    # A comparison leaves the run's own figure alone.
    for runs, name in (([brief], 'curves.png'), ([brief, one], 'comparison.png')):
        assert tool_here(curves, *runs).stdout == f'wrote {brief / name}\n'

    out.unlink()
    (tmp_path / 'nothing').mkdir()
    fails_cleanly(tool_here(curves, one, tmp_path / 'nothing', '--out', out), 'nothing has no training log')
    fails_cleanly(
        tool_here(curves, one, '--metrics', 'AP', '--out', out), 'no metric is called AP; there are mIoU, mAcc'
    )
    fails_cleanly(tool_here(curves, one, '--out', tmp_path / 'c.txt'), 'must end in .png')
    assert not out.exists()
