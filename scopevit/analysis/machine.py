"""What a measurement depends on besides the model: the machine, the libraries, the state of the code."""

import os
import platform
import subprocess
from datetime import date
from typing import Any

import torch

from ..models.ops.attention import KERNEL
from ..utils.cores import usable_cores


def describe_machine(device: str) -> dict[str, Any]:
    """Hardware, libraries and commit, and how busy the CPUs are now."""
    on_gpu = torch.device(device).type == 'cuda'
    return dict(
        date=date.today().isoformat(),
        device=torch.cuda.get_device_name(device) if on_gpu else 'CPU',
        cpu=_cpu_name(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_gib=round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30, 1),
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        attention_kernel=None if on_gpu else KERNEL is not None,
        cuda=torch.version.cuda if on_gpu else None,
        python=platform.python_version(),
        commit=_commit(),
        load=load_average(),
    )


def machine_in_words(machine: dict[str, Any]) -> str:
    """A sentence on what :func:`describe_machine` found, and on ``load_after``, if that is in it.

    Memory, commit, load and whether ScopeViT's attention kernel for CPUs was there may be missing.
    """
    memory = f', {machine["memory_gib"]} GiB of memory' if machine.get('memory_gib') else ''
    load = f', load average {machine["load"]} before' if 'load' in machine else ''
    load += f' and {machine["load_after"]} after' if 'load_after' in machine else ''
    kernel = ''
    if machine.get('attention_kernel') is not None:
        kernel = f', {"with" if machine["attention_kernel"] else "without"} the attention kernel of scopevit'
    commit = f', commit {machine["commit"]}' if machine.get('commit') else ''
    return (
        f'{machine["date"]}, {machine["device"]}: {machine["threads"]} threads on {machine["cores"]} cores of '
        f'{machine["cpu"]} ({machine["capability"]}){memory}{load}; '
        f'torch {machine["torch"]}{kernel}{commit}.'
    )


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu_name() -> str:
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of this code, with ``-dirty`` if code has changed since; None where git does not know it."""
    folder, file = os.path.split(os.path.abspath(__file__))

    def git(*words: str) -> str:
        return subprocess.run(['git', *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git('ls-files', '--error-unmatch', file)
        # Tables and figures are left out: a measurement writes them before the next one begins.
        changed = git('diff', '--name-only', 'HEAD', '--', ':/*.py', ':/*.cpp')
        return git('rev-parse', '--short', 'HEAD') + ('-dirty' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None
