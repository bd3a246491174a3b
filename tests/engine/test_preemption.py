"""Which signals a training hears; what becomes of it then is in test_resume.py."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from scopevit.engine.preemption import StopHook
from scopevit.engine.saving import GoOnHook


def test_a_signal_that_is_ignored_stays_so():
    """As SIGHUP does under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hook = StopHook()
    try:
        hook.before_train(SimpleNamespace(hooks=[GoOnHook()], val_loop=None))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == hook._note
        hook.stop_listening()
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])


# Sends itself signals that are further apart than a moment, as schedulers do: the first, and while it saves the others.
SLOW_SAVE = """
import os, signal, sys, time
from types import SimpleNamespace
from scopevit.engine import preemption
from scopevit.engine.saving import CheckpointHook, GoOnHook

preemption.A_MOMENT = 0

def save_as(runner, name, meta):
    time.sleep(0.01)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(0.01)
    print('saved')

saving, stop = CheckpointHook(), preemption.StopHook()
saving.save_as = save_as
logger = SimpleNamespace(warning=lambda text: None)
runner = SimpleNamespace(hooks=[GoOnHook(), saving], val_loop=None, logger=logger)
stop.before_train(runner)
os.kill(os.getpid(), signal.SIGUSR1)
if sys.argv[2] == 'due':
    runner.message_hub = SimpleNamespace(runtime_info={})
    with saving._or_as_before(runner, goes_on=True):
        save_as(runner, 'epoch_1.pth', {})
    saving.save_as = lambda *words: None
stop._stop(runner, 1, 1)
"""


@pytest.mark.parametrize('why', ['signal', 'due'])
@pytest.mark.parametrize(('later', 'status'), [('SIGTERM', 128 + signal.SIGUSR1), ('SIGINT', -signal.SIGINT)])
def test_nothing_but_ctrl_c_ends_a_training_that_saves(later, status, why):
    result = subprocess.run([sys.executable, '-c', SLOW_SAVE, later, why], capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    assert ('saved' in result.stdout) == (status > 0)


def test_a_process_that_learns_of_a_stop_has_as_long_as_the_one_that_was_told(monkeypatch):
    """Its own signal, which comes a little later, does not count as the second one."""
    hook = StopHook()
    hook.group = object()
    monkeypatch.setattr('torch.distributed.all_reduce', lambda told, *_: told.fill_(signal.SIGUSR1))
    assert hook._is_told(SimpleNamespace())
    hook._note(signal.SIGUSR1, None)  # else this process would be ended here
    assert hook.signal == signal.SIGUSR1


def test_a_signal_that_comes_while_the_processes_agree_is_heard_the_next_time(monkeypatch):
    """The others do not know of it yet: this one alone would stop, and wait for them."""
    hook = StopHook()
    hook.group = object()
    others: list[int] = []

    def all_reduce(told, *_):
        if not others:
            hook._note(signal.SIGTERM, None)
        others.append(int(told))

    monkeypatch.setattr('torch.distributed.all_reduce', all_reduce)
    assert not hook._is_told(SimpleNamespace())
    assert hook._is_told(SimpleNamespace())
    assert others == [0, signal.SIGTERM]
