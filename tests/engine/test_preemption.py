"""Which signals a training hears; what becomes of it then is in test_resume.py."""

import signal
from types import SimpleNamespace

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
