"""Speed and memory of models side by side, measured alternately in one process.

A round calls every model once, each time in another order, so that whatever else the machine does
falls on all alike; medians and quartiles are taken over the rounds, and ratios round by round.
"""

import gc
import os
import platform
import statistics
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..engine.errors import UserError
from .count import CONVENTION, count
from .networks import Size, image_channels

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
FEWEST_ROUNDS = 3
# Kinds of operators, by parts of their names. Products of matrices in pairs are those of attention,
# a linear layer is a product with one matrix.
KINDS = dict(
    conv=('conv',),
    attention=('attention', 'softmax', 'bmm'),
    linear=('mm', 'linear'),
    norm=('norm',),
    copies=('copy_', 'clone', '::cat', 'index', 'gather', 'roll', 'pad'),
)


@dataclass
class Entry:
    """A model that takes a batch of images (B, C, H, W); it is moved and its mode is set.

    Attributes:
        size: Height and width of its images.
    """

    label: str
    model: nn.Module
    size: Size


@dataclass(frozen=True)
class Settings:
    """How models are run.

    Attributes:
        train: Measure training steps: forward, backward and an AdamW update; else evaluation.
        threads: Threads of a CPU, set for the whole process; None: as it is.
        dtype: Name of the type that weights and images are cast to.
        autocast: Leave the weights as they are, and let torch's autocast compute in ``dtype``.
        compile: Run what torch.compile makes of the models.
        warmup: Steps of each model that are not measured.
        rounds: Measurements of each model.
        budget: Seconds after which no new round begins, once there are ``FEWEST_ROUNDS``.
        calls: Steps in a measurement, which is their mean; None: one on a CPU, ten on a GPU,
            where they are queued as in real work.
    """

    batch: int = 8
    train: bool = False
    device: str = 'cpu'
    threads: Optional[int] = None
    dtype: str = 'float32'
    autocast: bool = False
    channels_last: bool = False
    compile: bool = False
    warmup: int = 3
    rounds: int = 20
    budget: Optional[float] = None
    calls: Optional[int] = None


@dataclass
class Result:
    """Measurements of one model.

    Attributes:
        macs: Multiply-accumulates for one image, forward.
        seconds: Time of a step, in each round.
        ratios: Speed as a multiple of the first model's (where that has several sizes, at the
            same one), in each round.
        extra_memory: Bytes that a step needs at most beyond what it starts with: weights, and in
            training the optimizer's state.
        efficiency: Its matrix products and convolutions (three times as many in training)
            per second as a share of what one large matrix product reaches in the same rounds.
        shares: Parts of a step's time that kinds of operators take, see ``KINDS``.
    """

    label: str
    size: Size
    batch: int
    parameters: int
    macs: int
    seconds: List[float] = field(default_factory=list)
    ratios: List[float] = field(default_factory=list)
    extra_memory: int = 0
    efficiency: float = 0.0
    shares: Dict[str, float] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.batch / statistics.median(self.seconds)

    @property
    def ms_per_image(self) -> float:
        return 1e3 / self.images_per_second

    @property
    def step_quartiles(self) -> List[float]:
        """Seconds: lower quartile, median, upper quartile."""
        return _quartiles(self.seconds)

    def to_dict(self) -> dict:
        """All of it, and the summaries, for JSON."""
        return dict(
            asdict(self),
            images_per_second=self.images_per_second,
            ms_per_image=self.ms_per_image,
            ms_per_step=summary([1e3 * seconds for seconds in self.seconds]),
            ratio=summary(self.ratios),
        )


@dataclass
class Report:
    """Results, and on what machine and how they came about."""

    machine: Dict[str, object]
    settings: Settings
    results: List[Result]

    def to_dict(self) -> dict:
        return dict(
            machine=self.machine,
            settings=asdict(self.settings),
            convention=CONVENTION,
            results=[result.to_dict() for result in self.results],
        )

    def table(self) -> str:
        """A table in Markdown, with columns that line up."""
        header = (
            *('Model', 'Image', 'Parameters', 'MACs', 'Images/s', 'ms/image', 'ms/step (quartiles)'),
            *('Speed (quartiles)', 'Extra memory', 'of matmul'),
        )
        rows = [header]
        for result in self.results:
            low, middle, high = (1e3 * seconds for seconds in result.step_quartiles)
            slow, ratio, fast = _quartiles(result.ratios)
            rows.append(
                (
                    result.label,
                    f'{result.size[0]}x{result.size[1]}',
                    f'{result.parameters / 1e6:.2f} M',
                    f'{result.macs / 1e9:.3f} G',
                    f'{result.images_per_second:,.{1 if result.images_per_second < 1000 else 0}f}',
                    f'{result.ms_per_image:.4g}',
                    f'{middle:.4g} ({low:.4g} to {high:.4g})',
                    f'{ratio:.3g} ({slow:.3g} to {fast:.3g})',
                    f'{result.extra_memory / 2**20:.1f} MiB',
                    f'{result.efficiency:.0%}',
                )
            )
        return markdown(rows)

    def shares_table(self) -> str:
        """What kinds of operators take of the time, in Markdown."""
        header = ('Of the time', 'Image', *(*KINDS, 'other'))
        rows = [
            (result.label, f'{result.size[0]}x{result.size[1]}', *(f'{result.shares[kind]:.0%}' for kind in header[2:]))
            for result in self.results
        ]
        return markdown([header, *rows])

    def conditions(self) -> str:
        """Machine and settings in words."""
        settings, machine = self.settings, self.machine
        step = 'training step (forward, backward, AdamW)' if settings.train else 'evaluation'
        options = [step, f'batch {settings.batch}', settings.dtype + (' by autocast' if settings.autocast else '')]
        options += ['channels-last'] * settings.channels_last + ['torch.compile'] * settings.compile
        lines = [
            f'{", ".join(options)}; medians of {len(self.results[0].seconds)} rounds after {settings.warmup} steps for '
            'warming up, all models in turn.',
            machine_in_words(machine),
            f"A matrix product reached {machine['matmul_gflops']:.0f} GFLOP/s; 'of matmul' is a model's share of that. "
            "Extra memory is the most that a step takes beyond the weights and the optimizer's state.",
        ]
        return '\n'.join(lines)


def compare(
    entries: Sequence[Entry], settings: Settings, progress: Callable[[str], None] = lambda text: None
) -> Report:
    """Measure models alternately, the first being what others are compared with.

    Args:
        progress: Is told what happens.

    Raises:
        UserError: If a model cannot be run so.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    machine = describe_machine(settings.device)
    results, steppers = [], []
    for entry in entries:
        progress(f'{entry.label}: counting')
        with _named(entry):
            counted = count(entry.model, torch.zeros(1, image_channels(entry.model), *entry.size))
        results.append(Result(entry.label, entry.size, settings.batch, counted.parameters, counted.macs))
    for entry in entries:
        progress(f'{entry.label}: warming up')
        with _named(entry):
            steppers.append(_Stepper(entry, settings))
            for _ in range(settings.warmup):
                steppers[-1].step()

    matmul = _Matmul(settings)
    matmul.step()
    products = _measure(results, steppers, matmul, settings, progress)
    machine['matmul_gflops'] = matmul.operations / statistics.median(products) / 1e9
    for result, stepper in zip(results, steppers):
        twins = (other for other in results if (other.label, other.size) == (results[0].label, result.size))
        first = next(twins, results[0])
        result.ratios = [theirs / own for theirs, own in zip(first.seconds, result.seconds)]
        operations = 2 * result.macs * settings.batch * (3 if settings.train else 1)
        rates = [operations / own / (matmul.operations / other) for own, other in zip(result.seconds, products)]
        result.efficiency = statistics.median(rates)
        progress(f'{result.label}: memory')
        result.extra_memory, result.shares = stepper.profile()
    return Report(machine, settings, results)


@contextmanager
def _named(entry: Entry) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a model is a program: whatever it raises, it is the model's
        size = 'x'.join(map(str, entry.size))
        raise UserError(f'{entry.label} does not run at {size}: {type(error).__name__}: {error}') from error


def _measure(
    results: Sequence[Result],
    steppers: Sequence['_Stepper'],
    matmul: '_Matmul',
    settings: Settings,
    progress: Callable[[str], None],
) -> List[float]:
    """Fill in the seconds of the results; returns those of the matrix product."""
    products = []
    start = time.perf_counter()
    for number in range(settings.rounds):
        over = settings.budget is not None and time.perf_counter() - start > settings.budget
        if over and number >= FEWEST_ROUNDS:
            break
        for i in range(len(results)):
            turn = (i + number) % len(results)
            results[turn].seconds.append(steppers[turn].time())
        products.append(matmul.time())
        progress(f'round {number + 1} of {settings.rounds}, {time.perf_counter() - start:.0f} s')
    return products


class _Timed:
    """Something that is done again and again on a device."""

    step: Callable[[], object]

    def __init__(self, settings: Settings) -> None:
        self.device = torch.device(settings.device)
        self.calls = settings.calls or (10 if self.device.type == 'cuda' else 1)

    def time(self) -> float:
        """Seconds of a step, as the mean of some in a row."""
        if self.device.type == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            for _ in range(self.calls):
                self.step()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / self.calls
        begin = time.perf_counter()
        for _ in range(self.calls):
            self.step()
        return (time.perf_counter() - begin) / self.calls


class _Stepper(_Timed):
    """A model on its device with its images."""

    def __init__(self, entry: Entry, settings: Settings) -> None:
        super().__init__(settings)
        dtype = DTYPES[settings.dtype]
        weights = torch.float32 if settings.autocast else dtype
        self.model = entry.model.to(self.device, weights)
        self.model.train(settings.train)
        shape = (settings.batch, image_channels(entry.model), *entry.size)
        self.images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, weights)
        if settings.channels_last:
            self.model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.run = torch.compile(self.model) if settings.compile else self.model
        self.dtype = dtype if settings.autocast else None
        self.step = self._train if settings.train else self._evaluate
        self.optimizer = None
        if settings.train:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            # The weights stay as they are, so that every step does the same.
            self.optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def _autocast(self) -> ContextManager:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def _evaluate(self) -> object:
        with torch.no_grad(), self._autocast():
            return self.run(self.images)

    def _train(self) -> None:
        self.optimizer.zero_grad()
        with self._autocast():
            outputs = [x for x in tree_leaves(self.run(self.images)) if isinstance(x, Tensor) and x.requires_grad]
        if not outputs:
            raise RuntimeError('nothing that it returns can be trained')
        # A sum over squares: its gradient differs from image to image, and is not so small that arithmetic gets slow.
        sum(x.float().square().sum() for x in outputs).backward()
        self.optimizer.step()

    def profile(self) -> Tuple[int, Dict[str, float]]:
        """Extra memory and shares of a step, as :class:`Result` describes them."""
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        gc.collect()
        on_gpu = self.device.type == 'cuda'
        activities = [torch.profiler.ProfilerActivity.CPU]
        if on_gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        with _silent(), torch.profiler.profile(activities=activities, profile_memory=not on_gpu) as profile:
            self.step()
            if on_gpu:
                torch.cuda.synchronize(self.device)
        memory = torch.cuda.max_memory_allocated(self.device) - before if on_gpu else _most_allocated(profile)
        return memory, _shares(profile, on_gpu)


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


def _most_allocated(profile: torch.profiler.profile) -> int:
    """Bytes that torch's allocator on the CPU had handed out at most, beyond those before the profile began.

    Tensors and the buffers that operators use inside are in it, down to those of oneDNN. What
    was handed out before and is given back meanwhile is not subtracted.
    """
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    current = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        most = max(most, current)
    return most


def _shares(profile: torch.profiler.profile, on_gpu: bool) -> Dict[str, float]:
    times = dict.fromkeys((*KINDS, 'other'), 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), 'other')
        # On a GPU kernels have entries of their own, whose time operators that started them have as well.
        if event.device_type == torch.autograd.DeviceType.CPU:
            times[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(times.values()) or 1.0
    return {kind: seconds / total for kind, seconds in times.items()}


class _Matmul(_Timed):
    """A product of square matrices, which runs about as fast as the device can compute."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        side = 8192 if self.device.type == 'cuda' else 1024
        self.a, self.b = torch.randn(2, side, side, device=self.device, dtype=DTYPES[settings.dtype])
        self.operations = 2 * side**3

    def step(self) -> Tensor:
        return self.a @ self.b


def describe_machine(device: str) -> Dict[str, object]:
    """What a measurement depends on, but for the program."""
    on_gpu = torch.device(device).type == 'cuda'
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(
        date=date.today().isoformat(),
        device=torch.cuda.get_device_name(device) if on_gpu else 'CPU',
        cpu=_cpu_name(),
        cores=cores,
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        cuda=torch.version.cuda if on_gpu else None,
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def machine_in_words(machine: Dict[str, object]) -> str:
    """A sentence on what :func:`describe_machine` found."""
    return (
        f'{machine["date"]}, {machine["device"]}: {machine["threads"]} threads on {machine["cores"]} cores of '
        f'{machine["cpu"]} ({machine["capability"]}), load average before {machine["load"]}; torch {machine["torch"]}.'
    )


def _cpu_name() -> str:
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _quartiles(values: Sequence[float]) -> List[float]:
    return statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [values[0]] * 3


def summary(values: Sequence[float]) -> Dict[str, float]:
    """Median and quartiles by name."""
    return dict(zip(('quartile1', 'median', 'quartile3'), _quartiles(values)))


def markdown(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table whose columns line up; the first row is its header, the first columns are text, others numbers."""
    columns = []
    for number, column in enumerate(zip(*rows)):
        is_text, width = number < text_columns, max(map(len, column))
        header, *cells = (cell.ljust(width) if is_text else cell.rjust(width) for cell in column)
        columns.append([header, '-' * width if is_text else '-' * (width - 1) + ':', *cells])
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in zip(*columns))
