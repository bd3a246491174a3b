"""A training that goes on with another accumulation or average of weights does the optimizer's steps that were left."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop

from helpers import TOY, quiet_toolboxes
from scopevit.engine import options
from scopevit.engine.accumulation import iterations_done
from scopevit.engine.launch import build_runner
from scopevit.engine.resume import ScheduleOfConfig, settle_resume
from scopevit.utils.checkpoint import read_checkpoint
from scopevit.utils.errors import UserError

STEPS, SAVED = 4, 2
MANY = dict(constructor='Several', a=dict(optimizer={}, accumulative_counts=2), b=dict(optimizer={}))


@pytest.fixture
def train(fashion_mnist, tmp_path, monkeypatch):
    """Trains four steps of the toy config, in parts, and may save after each: returns the Runner, and its warnings."""
    number = iter(range(9))

    def run(parts=1, resume=None, ema=False, interval=100, epochs=None):
        cfg = Config.fromfile(TOY)
        cfg.merge_from_dict(
            dict(
                work_dir=str(tmp_path / f'run_{next(number)}'),
                train_dataloader=dict(dataset=dict(data_root=str(fashion_mnist))),
                default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=epochs is not None)),
            )
        )
        if resume is not None:
            cfg.update(resume=True, load_from=str(resume))
        cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        if epochs is None:
            cfg.train_cfg = dict(by_epoch=False, max_iters=STEPS)
            cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
        else:
            cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs)
        cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[SAVED + 1])]
        if ema:
            options.average_weights(cfg)
        if parts > 1:
            options.accumulate(cfg, parts)
        cfg.default_hooks.checkpoint.interval = interval
        with quiet_toolboxes():
            runner = build_runner(cfg, settle_resume(cfg))
            says = []
            monkeypatch.setattr(runner.logger, 'warning', says.append)
            runner.train()
        return SimpleNamespace(runner=runner, says=' '.join(says), folder=tmp_path / runner.work_dir)

    return run


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.runner.model.parameters()])


def average(run):
    (hook,) = (hook for hook in run.runner.hooks if isinstance(hook, EMAHook))
    return hook.ema_model


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'iteration', 'now'), [(1, SAVED, 2), (2, 2 * SAVED, 1), (2, 2 * SAVED + 1, 4)])
def test_a_training_by_iterations_goes_on_with_another_accumulation_as_if_it_had_always_had_it(
    train, before, iteration, now
):
    straight = train(now, ema=True)
    begun = train(before, ema=True, interval=1)
    resumed = train(now, resume=begun.folder / f'iter_{iteration}.pth', ema=True)
    assert resumed.runner.iter == now * STEPS
    assert f'goes on as iteration {now * SAVED}, there it had done {iteration}' in resumed.says
    assert ('1 of them, whose step was not complete' in resumed.says) == (iteration % before > 0)
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=1e-5)
    assert average(resumed).steps == average(straight).steps == now * STEPS
    rates = [run.runner.optim_wrapper.get_lr()['lr'] for run in (resumed, straight)]
    assert rates[0] == pytest.approx(rates[1])


def test_iterations_of_a_training_that_counts_them_as_before_stay():
    def settings(counts, length):
        return dict(optim_wrapper=dict(optimizer={}, accumulative_counts=counts), train_cfg=dict(max_iters=length))

    def done(before, now):
        return iterations_done(dict(iter=7, run=dict(settings=before)), Config(now))

    assert done(settings(2, 20), settings(3, 30)) == 9
    assert done(settings(2, 20), settings(2, 40)) == 7
    assert done(settings(1, 20), settings(8, 160)) == 56
    assert done(settings(1, 20), settings(2, 20)) == 7  # the config has said how to accumulate, not --accumulate
    assert done(settings('x', 20), settings(1, 30)) == 7  # of a file that others wrote
    assert iterations_done(dict(iter=7), Config(settings(2, 20))) == 7
    with pytest.raises(UserError, match='several optimizers cannot go on with'):
        done(dict(settings(1, 20), optim_wrapper=MANY), settings(2, 40))


def test_a_rate_that_follows_results_needs_the_accumulation_that_it_was_begun_with(monkeypatch):
    monkeypatch.setattr(ScheduleOfConfig, '_has_changed', lambda schedule, before: True)
    plateau = SimpleNamespace(need_val_args=True, state_dict=dict)
    optim_wrapper = OptimWrapper(torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1))
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    runner = SimpleNamespace(iter=8, train_loop=loop, optim_wrapper=optim_wrapper, param_schedulers=[plateau])
    with pytest.raises(UserError, match='this kind of schedule cannot go on with; resume with the --accumulate'):
        ScheduleOfConfig(runner).take_effect(dict(iter=4, run={}))


@pytest.mark.slow
def test_an_average_goes_on_with_another_accumulation_in_a_training_by_epochs(train):
    begun = train(ema=True, epochs=1)
    resumed = train(2, resume=begun.folder / 'epoch_1.pth', ema=True, epochs=2)
    assert (resumed.runner.iter, int(average(resumed).steps)) == (16, 16)


@pytest.mark.slow
def test_without_its_average_a_training_goes_on_with_the_raw_weights(train):
    begun = train(ema=True, interval=1)
    saved = begun.folder / f'iter_{SAVED}.pth'
    resumed, straight = train(resume=saved), train()
    assert 'the average is given up; --ema keeps it' in resumed.says
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
    assert 'ema_state_dict' not in read_checkpoint(str(resumed.folder / f'iter_{STEPS}.pth'))


@pytest.mark.slow
def test_an_average_begins_where_the_training_goes_on(train):
    begun = train(interval=1)
    resumed = train(resume=begun.folder / f'iter_{STEPS - 1}.pth', ema=True)
    assert average(resumed).steps == 1  # the first is a copy
    averaged = torch.cat([p.flatten() for p in average(resumed).module.parameters()])
    assert torch.equal(averaged, weights(resumed))
    assert torch.equal(weights(resumed), weights(begun))
