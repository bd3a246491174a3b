"""Speed and memory of models side by side, measured alternately in one process.

A round takes a sample of every model, each time in another random order, so that whatever else the
machine does falls on all alike; medians and quartiles are taken over the rounds, and ratios round by
round. The device's own speed, of matrix products and of a copy, is sampled among them.
"""

import math
import random
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..apis.model import Size, image_channels
from ..models.ops.linear import HAS_FUSED_LINEAR
from ..utils.errors import UserError, is_own_bug, one_line
from .count import count
from .machine import describe_machine, load_average
from .profiling import profile
from .reporting import LONG_STEP_SECONDS, SAMPLE_SECONDS, Report, Result, Settings

FEWEST_ROUNDS = 3
MOST_PROFILED_STEPS = 10
# What shows a device's own speed: a matrix product of this side, a copy of so many bytes, more than caches hold.
MATMUL_SIDES = dict(cpu=1024, cuda=8192)
COPIED_BYTES = dict(cpu=2**27, cuda=2**30)
# How often a step touches the weights at least: read, and in training also the gradients written and read, the
# weights and AdamW's two moments read and written.
WEIGHT_PASSES = dict(evaluation=1, training=9)


@dataclass
class Entry:
    """A model that takes a batch of images (B, C, H, W); it is moved and its mode is set.

    Attributes:
        size: Height and width of its images.
    """

    label: str
    model: nn.Module
    size: Size


def compare(
    entries: Sequence[Entry],
    settings: Settings,
    progress: Callable[[str], None] = lambda text: None,
    after_round: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Measure models alternately, the first being what others are compared with.

    A model that fails gets a result that says why.

    Args:
        progress: Is told what happens.
        after_round: Is given what is known after each round; memory and shares of operators come last.

    Raises:
        UserError: If no model can be run so.
    """
    with _settings_kept(), _enough_programs(len(entries), settings):
        torch.set_num_threads(settings.threads or torch.get_num_threads())
        if settings.tf32:
            torch.set_float32_matmul_precision('high')
        report = Report(describe_machine(settings.device), settings, [])
        for entry in entries:  # before a model is moved or cast
            parameters = sum(p.numel() for p in entry.model.parameters())
            result = Result(entry.label, entry.size, settings.batch, parameters)
            report.results.append(result)
            progress(f'{entry.label}: counting')
            with _noted(result):
                result.macs = count(entry.model, torch.zeros(1, image_channels(entry.model), *entry.size)).macs
        steppers = []
        for entry, result in zip(entries, report.results):
            if not result.error:
                progress(f'{entry.label}: warming up')
                with _noted(result):
                    steppers.append(_Stepper(entry, settings, result))
                    steppers[-1].warm_up(settings.warmup)
                    result.calls = steppers[-1].calls
        if not report.measured:
            raise UserError('; '.join(report.failures))
        _measure(report, steppers, progress, after_round)
        for stepper in steppers:
            progress(f'{stepper.result.label}: memory')
            stepper.profile()
        report.machine['load_after'] = load_average()
    return report


def _measure(
    report: Report,
    steppers: Sequence['_Stepper'],
    progress: Callable[[str], None],
    after_round: Callable[[Report], None],
) -> None:
    """Take samples round by round."""
    settings, generator = report.settings, random.Random(0)
    matmul, copy = _product(settings, torch.matmul), _copy(settings)
    products = [matmul]
    if settings.device == 'cpu' and settings.dtype == 'float32' and HAS_FUSED_LINEAR:
        # On some CPUs it is twice as fast as torch.matmul, which MKL does.
        products.append(
            _product(settings, lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, 'none', [], 'none'))
        )
    for rate in (*products, copy):
        rate.warm_up(settings.warmup)
    start = time.perf_counter()
    for number in range(settings.rounds):
        over = settings.budget is not None and time.perf_counter() - start > settings.budget
        if over and number >= FEWEST_ROUNDS:
            break
        order = [*products, copy, *steppers]
        generator.shuffle(order)
        for one in order:
            one.sample()
        report.machine['matmul_gflops'] = matmul.rate
        report.machine['peak_gflops'] = max(product.rate for product in products)
        report.machine['copy_gbytes'] = copy.rate
        for result in report.measured:
            _relate(result, report.results, matmul, settings)
            result.floors = _floors(result, report.machine, settings)
        after_round(report)
        progress(f'round {number + 1} of {settings.rounds}, {time.perf_counter() - start:.0f} s')


def _relate(result: Result, results: Sequence[Result], matmul: '_Timed', settings: Settings) -> None:
    """Compare a result with the first model's and with the matrix product, round by round."""
    twins = (other for other in results if (other.label, other.size) == (results[0].label, result.size))
    first = next(twins, results[0])
    result.ratios = [] if first.error else [theirs / own for theirs, own in zip(first.seconds, result.seconds)]
    operations = 2 * result.macs * settings.batch * (3 if settings.train else 1)
    rates = [operations / own / (matmul.amount / other) for own, other in zip(result.seconds, matmul.seconds)]
    result.efficiency = statistics.median(rates)


def _floors(result: Result, machine: dict[str, Any], settings: Settings) -> dict[str, float]:
    """See :class:`Result`."""
    operations = 2 * result.macs * (3 if settings.train else 1)
    item = 4 if settings.autocast else getattr(torch, settings.dtype).itemsize
    weights = item * result.parameters * WEIGHT_PASSES['training' if settings.train else 'evaluation']
    return dict(
        operations=operations / machine['peak_gflops'] / 1e6,
        bytes=weights / result.batch / machine['copy_gbytes'] / 1e6,
    )


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Leave torch's number of threads and its precision as they were."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _enough_programs(number: int, settings: Settings) -> AbstractContextManager:
    """Let torch.compile make one for each entry; beyond a few it would stop compiling and not say so."""
    if not settings.compile:
        return nullcontext()
    from torch._dynamo import config  # slow to import

    limit = max(config.recompile_limit, 2 * number)
    return config.patch(recompile_limit=limit, fail_on_recompile_limit_hit=True)


@contextmanager
def _noted(result: Result) -> Iterator[None]:
    """Let a result say why its model fails; a bug in the user's own code keeps its traceback."""
    try:
        yield
    except Exception as error:  # a model is a program: whatever it raises, it is the model's
        if is_own_bug(error):
            traceback.print_exception(error)
        result.error = one_line(error)


class _Timed:
    """Something that is done again and again on a device.

    Args:
        step: Does it once.
        amount: How much of something it does.
    """

    def __init__(self, settings: Settings, step: Callable[[], object], amount: float = 0) -> None:
        self.device = torch.device(settings.device)
        self.calls = settings.calls or 0
        self.step = step
        self.amount = amount
        self.seconds: list[float] = []
        self.is_long = False

    @property
    def rate(self) -> float:
        """Billions a second of what it does."""
        return self.amount / statistics.median(self.seconds) / 1e9

    def warm_up(self, steps: int) -> None:
        """Do some steps; the fastest decides how many make a sample."""
        fastest = min(self._time(1) for _ in range(steps))
        self.is_long = fastest > LONG_STEP_SECONDS
        self.calls = self.calls or math.ceil(SAMPLE_SECONDS / fastest)

    def sample(self) -> None:
        """Append the mean of some steps in a row, after one that is not measured."""
        self._fill_caches()
        self.seconds.append(self._time(self.calls))

    def _fill_caches(self) -> None:
        if not self.is_long:
            self.step()

    def _time(self, calls: int) -> float:
        """Seconds of a step. On a GPU steps are queued, as in real work."""
        if self.device.type == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            for _ in range(calls):
                self.step()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / calls
        begin = time.perf_counter()
        for _ in range(calls):
            self.step()
        return (time.perf_counter() - begin) / calls


class _Stepper(_Timed):
    """A model on its device with its images."""

    optimizer: torch.optim.Optimizer  # in training alone

    def __init__(self, entry: Entry, settings: Settings, result: Result) -> None:
        super().__init__(settings, self._train if settings.train else self._evaluate)
        self.result = result
        self.seconds = result.seconds
        dtype = getattr(torch, settings.dtype)
        weights = torch.float32 if settings.autocast else dtype
        self.model = entry.model.to(self.device, weights)
        self.model.train(settings.train)
        shape = (settings.batch, image_channels(entry.model), *entry.size)
        self.images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, weights)
        if settings.channels_last:
            self.model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.run = torch.compile(self.model, dynamic=settings.dynamic) if settings.compile else self.model
        self.dtype = dtype if settings.autocast else None
        self.is_training = settings.train
        if self.is_training:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            # The weights stay as they are, so that every step does the same.
            self.optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def sample(self) -> None:
        if not self.result.error:
            with _noted(self.result):
                super().sample()

    def profile(self) -> None:
        """Fill in memory and shares of operators."""
        if not self.result.error:
            with _noted(self.result):
                self._fill_caches()
                if self.is_training:
                    self.optimizer.zero_grad()
                steps = min(self.calls, MOST_PROFILED_STEPS)
                found = profile(self.step, self.device, steps)
                self.result.extra_memory, self.result.shares = found.memory, found.shares
                self.result.gpu_seconds, self.result.launches = found.gpu_seconds, found.launches
                self.result.kernels = found.kernels

    def _autocast(self) -> AbstractContextManager:
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
        loss: Any = sum(x.float().square().sum() for x in outputs)
        loss.backward()
        self.optimizer.step()


def _product(settings: Settings, multiply: Callable[[Tensor, Tensor], Tensor]) -> _Timed:
    """A product of square matrices, which runs about as fast as the device can compute."""
    side = MATMUL_SIDES[torch.device(settings.device).type]
    a, b = torch.randn(2, side, side, device=settings.device, dtype=getattr(torch, settings.dtype))
    return _Timed(settings, lambda: multiply(a, b), amount=2 * side**3)


def _copy(settings: Settings) -> _Timed:
    """A large copy, which runs about as fast as memory can be read and written."""
    size = COPIED_BYTES[torch.device(settings.device).type]
    source = torch.ones(size, dtype=torch.uint8, device=settings.device)  # zeros may share one page of memory
    target = torch.empty_like(source)
    return _Timed(settings, lambda: target.copy_(source), amount=2 * source.nbytes)
