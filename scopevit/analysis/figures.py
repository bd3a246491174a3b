"""Figures of measurements."""

from matplotlib.figure import Figure

from ..utils.files import save_figure
from .reporting import Report, Result


def plot(report: Report, path: str) -> None:
    """Bars of images per second; where a model has several sizes, curves over the area."""
    labels = {result.label for result in report.measured}
    save_figure(_curves(report) if len(labels) < len(report.measured) else _bars(report), path)


def _curves(report: Report) -> Figure:
    figure = Figure(figsize=(16, 4.5), layout='constrained')
    axes = figure.subplots(1, 3)
    curves: dict[str, list[Result]] = {}
    for result in sorted(report.measured, key=_area):
        curves.setdefault(result.label, []).append(result)
    for label, results in curves.items():
        areas = [_area(result) for result in results]
        axes[0].loglog(areas, [result.ms_per_image for result in results], marker='o', label=label)
        axes[1].loglog(areas, [result.extra_mib / result.batch for result in results], marker='o')
        axes[2].semilogx(areas, [100 * result.shares['attention'] for result in results], marker='o')
    sizes = {result.size_text: _area(result) for result in report.measured}
    for part, name in zip(axes, ('ms per image', 'extra MiB per image', "attention's share of the time, %")):
        part.set(xlabel='image', ylabel=name)
        part.set_xticks(list(sizes.values()), list(sizes), rotation=45)
        part.minorticks_off()
        part.grid(alpha=0.3)
    axes[2].set_ylim(bottom=0)
    axes[0].legend()
    return figure


def _area(result: Result) -> int:
    return result.size[0] * result.size[1]


def _bars(report: Report) -> Figure:
    results = report.measured[::-1]  # the first at the top
    speeds = [result.images_per_second for result in results]
    quartiles = [(result.batch / q for q in result.step_quartiles) for result in results]
    errors = [(speed - slow, fast - speed) for speed, (fast, _, slow) in zip(speeds, quartiles)]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(results)), layout='constrained')
    axes = figure.subplots()
    bars = axes.barh([result.label for result in results], speeds, xerr=list(zip(*errors)), ecolor='0.3')
    axes.bar_label(bars, [f'{speed:,.3g}' if speed < 100 else f'{speed:,.0f}' for speed in speeds], padding=4)
    axes.set(xlabel='training images/s' if report.settings.train else 'images/s')
    axes.margins(x=0.12)
    axes.grid(axis='x', alpha=0.3)
    return figure
