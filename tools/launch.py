"""Start a tool in several processes: on GPUs one each, otherwise on the CPU over gloo.

    scopevit launch NPROC TOOL [ARGUMENTS of the tool]

TOOL is train, test or a script's file. On several machines set on each: NNODES, NODE_RANK (0 is the
first), MASTER_ADDR and PORT of the first.

It is torchrun without its pages about what a process has said already. It ends with the status of the
process that failed first, and after a signal with 128 and the signal's number. An error that several
processes have is said by one of them.
"""

import argparse
import importlib.util
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1')


def rendezvous(environ: Mapping[str, str]) -> list[str]:
    """Options by which the processes find one another.

    Raises:
        ValueError: If one of several machines does not say who and where it is: each would wait in silence.
    """
    nodes, rank, address = (environ.get(name, '') for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR'))
    nodes = nodes or '1'
    if not nodes.isdecimal() or nodes.startswith('0'):
        raise ValueError(f"NNODES must be a whole number of at least 1, but is '{nodes}'")
    if nodes == '1':
        if not environ.get('PORT'):
            return ['--standalone']
    elif not address:
        raise ValueError(f'NNODES={nodes} needs MASTER_ADDR, the address of the first machine')
    elif not rank.isdecimal():
        raise ValueError(f'NNODES={nodes} needs NODE_RANK, the number of this machine from 0 on')
    elif int(rank) >= int(nodes):
        raise ValueError(f'NODE_RANK must be less than NNODES={nodes}, but is {rank}')
    where = [f'--master-addr={address or "127.0.0.1"}', f'--master-port={environ.get("PORT") or 29500}']
    return [f'--nnodes={nodes}', f'--node-rank={rank or 0}', *where]


def share_cores(processes: int, environ: MutableMapping[str, str]) -> None:
    """Without GPUs the processes share the cores; torchrun would give each a single thread."""
    import torch

    if not environ.get('OMP_NUM_THREADS') and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        environ['OMP_NUM_THREADS'] = str(max(1, cores // processes))
    # Else MMEngine sets it, with a warning.
    environ['MKL_NUM_THREADS'] = environ.get('MKL_NUM_THREADS') or environ.get('OMP_NUM_THREADS') or '1'


def processes(text: str) -> int:
    """Type of NPROC."""
    if not text.isdecimal() or text.startswith('0'):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but is '{text}'")
    return int(text)


def command(words: list[str]) -> list[str]:
    """What torchrun is called with."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('nproc', metavar='NPROC', type=processes, help='how many processes on this machine')
    parser.add_argument('tool', metavar='TOOL', help="train, test or a script's file")
    args = parser.parse_args(words[:2])  # what follows is the tool's
    try:
        where = rendezvous(os.environ)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    is_ours = args.tool in ('train', 'test')
    if not is_ours and not os.path.isfile(args.tool):
        parser.error(f'argument TOOL: there is no file {args.tool}, and it is neither train nor test')
    script = str(Path(__file__).resolve().parent / f'{args.tool}.py') if is_ours else args.tool
    share_cores(args.nproc, os.environ)
    # The processes are to take the package that this is of, which may lie in the current folder alone.
    package = Path(importlib.util.find_spec('scopevit').origin).resolve().parents[1]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(package), os.environ.get('PYTHONPATH')]))
    return [*where, f'--nproc-per-node={args.nproc}', script, *words[2:], '--launcher', 'pytorch']


def run() -> int:
    """Start the processes and wait for them; returns the exit status."""
    try:
        return launch(command(sys.argv[1:]))
    except KeyboardInterrupt:  # before anything is started, while torch is imported
        print('interrupted', file=sys.stderr)
        return 130


def launch(words: list[str]) -> int:
    """Call torchrun with these words; returns the exit status."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, main

    logging.disable(logging.ERROR)
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '120')  # seconds to save in, where torch knows of it
    heard = [name for name in SIGNALS if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]  # nohup
    handled = os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', ','.join(heard))
    if '--signals-to-handle' in get_args_parser().format_help():  # later versions do not ask the environment
        words = ['--signals-to-handle', handled, *words]
    with tempfile.TemporaryDirectory() as os.environ['SCOPEVIT_LAUNCH']:  # see scopevit/utils/errors.py
        try:
            main(words)
        except SignalException as end:
            return 128 + int(end.sigval)
        except ChildFailedError as error:
            return status_of(error.failures)
    return 0


def status_of(failures: Mapping[int, Any]) -> int:
    """Exit status of the process over which the others were ended; says so if it was killed.

    Args:
        failures: How processes ended, by their ranks, as torchrun has it.
    """
    by_launcher = -signal.SIGTERM  # how the others end
    rank, failure = min(failures.items(), key=lambda item: (item[1].exitcode == by_launcher, item[1].timestamp))
    if failure.exitcode >= 0:
        return failure.exitcode
    reason = '; the system kills processes for which memory is short' if failure.exitcode == -signal.SIGKILL else ''
    print(f'error: process {rank} was ended by {failure.signal_name()}{reason}', file=sys.stderr)
    return 128 - failure.exitcode


if __name__ == '__main__':
    sys.exit(run())
