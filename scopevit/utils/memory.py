"""How much memory is left."""

import os
import re

import torch

# Where a container's or job's limit stands, its use, and of that the files in memory, which the system gives back:
# cgroups of two versions.
_GROUPS = (
    ('/sys/fs/cgroup', 'memory.max', 'memory.current', ('inactive_file', 'active_file')),
    (
        '/sys/fs/cgroup/memory',
        'memory.limit_in_bytes',
        'memory.usage_in_bytes',
        ('total_inactive_file', 'total_active_file'),
    ),
)


def available_memory(device: str | torch.device) -> int | None:
    """Bytes that can be had on a device without swapping; None if that is not known."""
    device = torch.device(device)
    if device.type == 'cuda':
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != 'cpu':
        return None
    of_system = _number('/proc/meminfo', 'MemAvailable:')
    found = [] if of_system is None else [1024 * of_system]
    for folder, limit, usage, files in _GROUPS:
        most, used = (_number(os.path.join(folder, name)) for name in (limit, usage))
        if most is not None and used is not None:
            in_files = sum(_number(os.path.join(folder, 'memory.stat'), name) or 0 for name in files)
            found.append(most - used + in_files)
    return max(min(found), 0) if found else None


def _number(path: str, name: str = '') -> int | None:
    """The number in a file, behind a name that a line begins with; None if there is none."""
    try:
        with open(path) as file:
            found = re.search(rf'^{name}\s*(\d+)', file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
