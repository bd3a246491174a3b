"""torchrun for the scripts here: the same options, without its pages about what a process has said already.

It ends with the status of the process that failed first, and after a signal with 128 and the signal's number.
"""

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def run() -> int:
    """Start the processes and wait for them; returns the exit status."""
    logging.disable(logging.ERROR)
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '120')  # seconds to save in, where torch knows of it
    os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1')
    try:
        main(sys.argv[1:])
    except SignalException as end:
        return 128 + int(end.sigval)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == '__main__':
    sys.exit(run())
