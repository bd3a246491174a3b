"""Where the time of a step goes, and how much memory it takes."""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

# Kinds of operators, by what their names hold; the first that fits. Products of matrices in pairs
# are those of attention, a linear layer is a product with one matrix, as a 1x1 convolution is (its
# shapes tell).
KINDS = dict(
    conv='conv',
    attention='attention|softmax|bmm',
    linear='mm|matmul|(?<!bi)(?<!tri)linear',
    norm='norm',
    activation='elu|silu|swish|sigmoid|mish|tanh|threshold|clamp',
    copies='copy|clone|::_?cat|index|gather|roll|pad|repeat',
    elementwise='add|sub|mul|div|pow|square|sqrt|exp(?!and)|sum|mean|where|mask|dropout',
)

MOST_KERNELS = 40


@dataclass
class Profile:
    """Where a step's time and memory go.

    Attributes:
        memory: Bytes that it needed at most beyond what there was before.
        shares: Parts of its time that ``KINDS`` of operators and 'other' ones took.
        gpu_seconds: Time in which a GPU ran kernels; 0 on CPUs.
        launches: Kernels and copies that a GPU ran.
        kernels: Of those that took most time the name, the milliseconds in a step and how often they ran.
    """

    memory: int
    shares: dict[str, float]
    gpu_seconds: float
    launches: float
    kernels: list[tuple[str, float, float]]


def profile(step: Callable[[], object], device: torch.device, times: int = 1) -> Profile:
    """Run a step some times under torch's profiler."""
    # What earlier steps left behind, freed during this one, would make room that it seems not to need.
    gc.collect()
    on_gpu = device.type == 'cuda'
    activities = [torch.profiler.ProfilerActivity.CPU]
    # A GPU's allocator knows its maximum; on CPUs it is added up from what the profiler records.
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with (
        _silent(),
        torch.profiler.profile(activities=activities, profile_memory=not on_gpu, record_shapes=True) as profiler,
    ):
        for _ in range(times):
            step()
        # Kernels are started, not awaited.
        if on_gpu:
            torch.cuda.synchronize(device)
    memory = torch.cuda.max_memory_allocated(device) - before if on_gpu else _most_allocated(profiler)
    # Without the operators that started the kernels, whose entries count the same time.
    kernels = [
        (event.key, event.self_device_time_total / times / 1e3, event.count / times)
        for event in (profiler.key_averages() if on_gpu else ())
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    kernels.sort(key=lambda kernel: -kernel[1])
    milliseconds, launches = (sum(kernel[i] for kernel in kernels) for i in (1, 2))
    return Profile(memory, _shares(profiler, on_gpu), milliseconds / 1e3, launches, kernels[:MOST_KERNELS])


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torch's profiler from writing to the terminal, which it does below Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _most_allocated(profiler: Any) -> int:
    """Bytes that torch's allocator on the CPU had handed out at most, beyond those before the profile began.

    Tensors and the buffers that operators use inside are in it, down to those of oneDNN. What
    was handed out before and is given back meanwhile is not subtracted.
    """
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    current = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        most = max(most, current)
    return most


def kind_of(operator: str, shapes: Sequence = ()) -> str:
    """One of ``KINDS``, or 'other', for a name such as ``aten::addmm`` and the shapes of the operator's inputs."""
    kind = next((kind for kind, parts in KINDS.items() if re.search(parts, operator)), 'other')
    if kind == 'conv':
        weights = [shape for shape in shapes if len(shape) == 4][-1:]  # the images come before
        if weights and weights[0][1] > 1 and list(weights[0][2:]) == [1, 1]:
            return 'linear'
    return kind


def _shares(profiler: torch.profiler.profile, on_gpu: bool) -> dict[str, float]:
    times = dict.fromkeys((*KINDS, 'other'), 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        # On a GPU kernels have entries of their own, whose time operators that started them have as well.
        if event.device_type == torch.autograd.DeviceType.CPU:
            times[kind_of(event.key, event.input_shapes)] += (
                event.self_device_time_total if on_gpu else event.self_cpu_time_total
            )
    total = sum(times.values()) or 1.0
    return {kind: seconds / total for kind, seconds in times.items()}
