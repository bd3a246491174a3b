"""How measurements are shown and kept: medians with their quartiles, tables, files."""

import statistics
from collections.abc import Sequence


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [values[0]] * 3


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles by name; nothing of nothing."""
    return dict(zip(('quartile1', 'median', 'quartile3'), quartiles(values))) if values else {}


def markdown(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table whose columns line up; the first row is its header, the first columns are text, others numbers."""
    columns = []
    for number, column in enumerate(zip(*rows)):
        is_text, width = number < text_columns, max(map(len, column))
        header, *cells = (cell.ljust(width) if is_text else cell.rjust(width) for cell in column)
        columns.append([header, '-' * width if is_text else '-' * (width - 1) + ':', *cells])
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in zip(*columns))
