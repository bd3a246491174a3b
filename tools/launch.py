"""torchrun for the scripts here: the same options, without its pages about what a process has said already.

It ends with the status of the process that failed first, and after a signal with 128 and the signal's number. An error
that several processes have is said by one of them.
"""

import logging
import os
import signal
import sys
import tempfile

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, main

SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1')


def run() -> int:
    """Start the processes and wait for them; returns the exit status."""
    logging.disable(logging.ERROR)
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '120')  # seconds to save in, where torch knows of it
    heard = [name for name in SIGNALS if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]  # nohup
    handled = os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', ','.join(heard))
    words = sys.argv[1:]
    if '--signals-to-handle' in get_args_parser().format_help():  # later versions do not ask the environment
        words = ['--signals-to-handle', handled, *words]
    with tempfile.TemporaryDirectory() as os.environ['SCOPEVIT_LAUNCH']:  # see scopevit/utils/errors.py
        try:
            main(words)
        except SignalException as end:
            return 128 + int(end.sigval)
        except ChildFailedError as error:
            return status_of(error)
    return 0


def status_of(error: ChildFailedError) -> int:
    """Exit status of the process over which the others were ended; says so if it was killed."""
    by_launcher = -signal.SIGTERM  # how the others end
    rank, failure = min(error.failures.items(), key=lambda item: (item[1].exitcode == by_launcher, item[1].timestamp))
    if failure.exitcode >= 0:
        return failure.exitcode
    reason = '; the system kills processes for which memory is short' if failure.exitcode == -signal.SIGKILL else ''
    print(f'error: process {rank} was ended by {failure.signal_name()}{reason}', file=sys.stderr)
    return 128 - failure.exitcode


if __name__ == '__main__':
    sys.exit(run())
