"""What stands on the screen: the summary's lines, and what is let through before the first iteration."""

import io
import logging
import warnings
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmengine.runner import EpochBasedTrainLoop

from scopevit.engine import console


def runner(loop=None, loader=None, **cfg):
    loop = loop or SimpleNamespace(dataloader=loader, max_iters=80000)
    return SimpleNamespace(train_loop=loop, cfg=Config(cfg), hooks=[], work_dir='nowhere')


@pytest.mark.parametrize(
    ('loader', 'wrapper', 'says'),
    [
        (SimpleNamespace(batch_size=16), {}, '16 images'),
        (SimpleNamespace(batch_size=16), dict(accumulative_counts=4), '64 = 16 images x 4 iterations'),
        (SimpleNamespace(batch_size=None, batch_sampler=SimpleNamespace(batch_size=2)), {}, '2 images'),
        (SimpleNamespace(batch_size=None), {}, 'as its sampler says'),
    ],
)
def test_batch(loader, wrapper, says):
    assert console._batch(runner(loader=loader, optim_wrapper=wrapper)) == says


def test_schedule_by_iterations():
    wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4))
    assert console._schedule(runner(optim_wrapper=wrapper)) == '80000 iterations, AdamW, learning rate 0.0001'


def test_schedule_by_epochs_with_a_scaled_rate():
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader, loop._max_epochs, loop._max_iters = [0] * 3, 1, 3
    cfg = dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1)), auto_scale_lr=dict(enable=True, base_batch_size=16)
    )
    says = '1 epoch of 3 iterations, SGD, learning rate 1 for 16 images, scaled to the batch'
    assert console._schedule(runner(loop, **cfg)) == says


@pytest.mark.parametrize(
    ('load_from', 'resume', 'says'),
    [
        (None, False, 'initialised as the config says'),
        ('a.pth', False, 'of a.pth'),
        ('a.pth', True, 'go on from a.pth'),
        (None, True, 'initialised as the config says'),
    ],
)
def test_weights(load_from, resume, says):
    assert console._weights(SimpleNamespace(_load_from=load_from, _resume=resume, hooks=[])) == says


def record(text, level=logging.INFO, path='/site-packages/mmengine/runner/runner.py'):
    return logging.LogRecord('mmengine', level, path, 1, text, None, None)


def test_before_the_first_iteration_only_this_package_and_warnings_are_shown():
    screen = console.UntilTheFirstIteration()
    assert not screen.filter(record('Hooks will be executed in the following order'))
    assert screen.filter(record('Backbone from a.pth: 472 matched', path=console.__file__))
    assert screen.filter(record('the learning rate is odd', logging.WARNING))
    assert not screen.filter(record('"HardDiskBackend" is the alias of "LocalBackend"', logging.WARNING))
    screen.is_open = True
    assert screen.filter(record('Epoch(train)'))


@pytest.mark.parametrize(('rank', 'shown'), [('0', ['yours']), ('1', [])])
def test_warnings_that_help_nobody_are_hidden_and_others_said_once(rank, shown, monkeypatch):
    monkeypatch.setenv('RANK', rank)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        console.silence_useless_warnings()
        warnings.warn('Grad strides do not match bucket view strides. This may', stacklevel=1)
        warnings.warn('yours', stacklevel=1)
    assert [str(warning.message) for warning in caught] == shown


@pytest.mark.parametrize(('length', 'interval'), [(9, 2), (3, 1), (50, 50), (1000, 50)])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_an_epoch_shorter_than_the_interval_of_the_log_has_several_lines(length, interval, by_epoch):
    loop = SimpleNamespace(max_iters=length)
    if by_epoch:
        loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
        loop.dataloader, loop._max_iters = [0] * length, 60 * length
    shown, hook = runner(loop), LoggerHook(interval=50)
    shown.hooks = [hook]
    console.shorten_log_interval(shown)
    assert hook.interval == interval


def test_the_log_goes_on_where_rich_leaves_the_screen_alone(monkeypatch):
    """As it does in a terminal that it is told to take for none."""
    monkeypatch.setenv('TTY_COMPATIBLE', '0')
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr('sys.stdout', screen)
    handler = logging.StreamHandler(screen)
    logger = logging.Logger('training')
    logger.addHandler(handler)
    training = SimpleNamespace(logger=logger, register_hook=lambda hook: None)
    with console.progress_shown(training):
        logger.warning('within')
    logger.warning('behind')
    assert handler.stream is screen
    assert screen.getvalue().split() == ['within', 'behind']
