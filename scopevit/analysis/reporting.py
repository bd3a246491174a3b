"""How measurements are described, shown and kept: settings, medians with their quartiles, tables."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..apis.model import Size
from ..utils.tables import markdown
from .count import CONVENTION, Count
from .machine import machine_in_words
from .profiling import KINDS

SAMPLE_SECONDS = 0.2
"""A sample consists of as many steps as last so long."""
LONG_STEP_SECONDS = 2.0
"""A step that lasts longer needs none before it to fill the caches."""


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [values[0]] * 3


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles by name; nothing of nothing."""
    return dict(zip(('quartile1', 'median', 'quartile3'), quartiles(values))) if values else {}


def tree(counted: Count, depth: int) -> str:
    """A table of parts down to a depth, but for lists of modules, and for what holds and computes nothing."""
    rows = [('Part', 'Type', 'Parameters', 'MACs', 'Share')]
    listed = {'': 0}  # names and their levels
    for name, part in counted.modules.items():
        parent = max((other for other in listed if name.startswith(other and f'{other}.')), key=len)
        level = listed[parent] + 1 if name else 0
        if level > depth or part.type == 'ModuleList' or not (part.parameters or part.macs):
            continue
        listed[name] = level
        label = '  ' * (level - 1) + name[len(parent) :].lstrip('.') if name else '(all)'
        share = part.macs / counted.macs if counted.macs else 0
        rows.append((label, part.type, f'{part.parameters:,}', f'{part.macs / 1e6:,.1f} M', f'{share:.1%}'))
    return markdown(rows, text_columns=2)


def number(value: float, digits: int) -> str:
    """With so many significant digits, and at least all before the point."""
    return f'{value:,.0f}' if value >= 10 ** (digits - 1) else f'{value:.{digits}g}'


@dataclass(frozen=True)
class Settings:
    """How models are run.

    Attributes:
        train: Measure training steps: forward, backward and an AdamW update; else evaluation.
        threads: Threads of a CPU, set while it is measured; None: as it is.
        dtype: Name of the type that weights and images are cast to.
        tf32: Compute float32 products of matrices in TF32 where the device can.
        autocast: Leave the weights as they are, and let torch's autocast compute in ``dtype``.
        compile: Run what torch.compile makes of the models.
        dynamic: Compile one program for all sizes of a model, not one for each.
        warmup: Steps of each model that are not measured.
        rounds: Samples of each model.
        budget: Seconds after which no new round begins, once there are ``FEWEST_ROUNDS``.
        calls: Steps in a sample, which is their mean; None: as many as last ``SAMPLE_SECONDS``.
    """

    batch: int = 8
    train: bool = False
    device: str = 'cpu'
    threads: int | None = None
    dtype: str = 'float32'
    tf32: bool = False
    autocast: bool = False
    channels_last: bool = False
    compile: bool = False
    dynamic: bool = False
    warmup: int = 3
    rounds: int = 20
    budget: float | None = None
    calls: int | None = None


@dataclass
class Result:
    """Measurements of one model.

    Attributes:
        macs: Multiply-accumulates for one image, forward.
        calls: Steps in a sample.
        seconds: Time of a step, in each round.
        ratios: Speed as a multiple of the first model's (where that has several sizes, at the
            same one), in each round.
        extra_memory: Bytes that a step needs at most beyond what it starts with: weights, and in
            training the optimizer's state.
        efficiency: Its matrix products and convolutions (three times as many in training)
            per second as a share of what a large product by torch.matmul reaches in the same rounds.
        floors: Milliseconds that an image takes at least by its ``operations``, at the rate of the
            fastest matrix product, and by the ``bytes`` of the step's weights, at the rate of the copy.
        shares: Parts of a step's time that kinds of operators take, see ``profiling.KINDS``.
        gpu_seconds: Of a step, the time in which a GPU ran kernels.
        launches: Kernels that a GPU ran in a step.
        kernels: See ``profiling.Profile``.
        error: Why it cannot be run so, if it cannot; what else is here was measured before.
    """

    label: str
    size: Size
    batch: int
    parameters: int
    macs: int = 0
    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    extra_memory: int | None = None
    efficiency: float = 0.0
    floors: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    launches: float = 0.0
    kernels: list[tuple[str, float, float]] = field(default_factory=list)
    error: str | None = None

    @property
    def images_per_second(self) -> float:
        return self.batch / statistics.median(self.seconds)

    @property
    def ms_per_image(self) -> float:
        return 1e3 / self.images_per_second

    @property
    def step_quartiles(self) -> list[float]:
        """Seconds: lower quartile, median, upper quartile."""
        return quartiles(self.seconds)

    @property
    def extra_mib(self) -> float:
        """Extra memory; 0 before it is known."""
        return (self.extra_memory or 0) / 2**20

    @property
    def size_text(self) -> str:
        return f'{self.size[0]}x{self.size[1]}'

    def to_dict(self) -> dict:
        """All of it, and the summaries, for JSON."""
        return dict(
            asdict(self),
            images_per_second=self.images_per_second if self.seconds else None,
            ms_per_image=self.ms_per_image if self.seconds else None,
            ms_per_step=summary([1e3 * seconds for seconds in self.seconds]),
            ratio=summary(self.ratios),
        )

    def cells(self) -> list[str]:
        """Its row of the table."""
        start = [self.label, self.size_text, f'{self.parameters / 1e6:.2f} M']
        if self.error:
            return [*start, 'fails', *['-'] * 7]
        low, middle, high = (1e3 * seconds for seconds in self.step_quartiles)
        slow, ratio, fast = quartiles(self.ratios) if self.ratios else [math.nan] * 3
        return [
            *start,
            f'{self.macs / 1e9:.3f} G',
            number(self.images_per_second, 3),
            number(self.ms_per_image, 4),
            number(max(self.floors.values()), 3),
            f'{number(middle, 4)} ({number(low, 4)} to {number(high, 4)})',
            f'{ratio:.3g} ({slow:.3g} to {fast:.3g})' if self.ratios else '-',
            f'{self.extra_mib:.1f} MiB',
            f'{self.efficiency:.0%}',
        ]


@dataclass
class Report:
    """Results, and on what machine and how they came about."""

    machine: dict[str, Any]
    settings: Settings
    results: list[Result]

    @property
    def measured(self) -> list[Result]:
        """Those of models that could be run."""
        return [result for result in self.results if not result.error]

    @property
    def failures(self) -> list[str]:
        """What the others failed with."""
        return [f'{r.label} does not run at {r.size_text}: {r.error}' for r in self.results if r.error]

    def to_dict(self) -> dict:
        return dict(
            machine=self.machine,
            settings=asdict(self.settings),
            convention=CONVENTION,
            results=[result.to_dict() for result in self.results],
        )

    def table(self) -> str:
        """A table in Markdown, with columns that line up; under it, what failed."""
        header = (
            *('Model', 'Image', 'Parameters', 'MACs', 'Images/s', 'ms/image', 'floor, ms', 'ms/step (quartiles)'),
            *('Speed (quartiles)', 'Extra memory', 'of matmul'),
        )
        failures = ''.join(f'\n- {failure}' for failure in self.failures)
        return markdown([header, *(result.cells() for result in self.results)]) + (failures and f'\n{failures}')

    def shares_table(self) -> str:
        """What kinds of operators take of the time, in Markdown."""
        kinds = (*KINDS, 'other')
        rows = [(r.label, r.size_text, *(f'{r.shares[kind]:.0%}' for kind in kinds)) for r in self.measured]
        return markdown([('Of the time', 'Image', *kinds), *rows])

    def gpu_table(self) -> str:
        """How long a GPU is at work in a step, in Markdown; nothing of CPUs."""
        rows = [
            (
                *(r.label, r.size_text, f'{r.launches:.0f}', number(1e3 * r.gpu_seconds, 4)),
                number(r.batch / r.gpu_seconds, 3),
            )
            for r in self.measured
            if r.gpu_seconds
        ]
        header = ('On the GPU', 'Image', 'Launches/step', 'Kernels, ms/step', 'Images/s without gaps')
        return markdown([header, *rows]) if rows else ''

    def conditions(self) -> str:
        """Machine and settings in words."""
        settings, machine = self.settings, self.machine
        step = 'training step (forward, backward, AdamW)' if settings.train else 'evaluation'
        options = [step, f'batch {settings.batch}', settings.dtype + (' by autocast' if settings.autocast else '')]
        options += ['TF32'] * settings.tf32
        options += ['channels-last'] * settings.channels_last
        if settings.compile:
            options.append('torch.compile for all sizes' if settings.dynamic else 'torch.compile')
        rounds = max(len(result.seconds) for result in self.results)
        lines = [
            f'{", ".join(options)}; medians of {rounds} rounds after {settings.warmup} steps of warm-up. A round '
            'samples all models in random order; a sample is the mean of '
            f'{settings.calls or f"as many steps as last {SAMPLE_SECONDS} s"}, after one that is not measured '
            f'(but for steps of over {LONG_STEP_SECONDS} s).',
            machine_in_words(machine),
            f'A matrix product by torch.matmul reached {machine["matmul_gflops"]:.0f} GFLOP/s, by the fastest library '
            f'in torch {machine["peak_gflops"]:.0f}, and a copy {machine["copy_gbytes"]:.1f} GB/s, read and written. '
            "'Of matmul' is a model's share of the first, and may be over 100 % where the second is higher. The floor "
            'is what an image takes at least: the larger of the time for its operations, at the second rate, and of '
            'that for the bytes of the weights, at the third. '
            "Extra memory is the most that a step takes beyond the weights and the optimizer's state.",
        ]
        return '\n'.join(lines)
