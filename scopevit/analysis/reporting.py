"""How measurements are shown and kept: medians with their quartiles, tables, files."""

import json
import os
import statistics
from typing import Dict, List, Sequence

from ..engine.errors import UserError
from ..engine.launch import check_writable


def quartiles(values: Sequence[float]) -> List[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [values[0]] * 3


def summary(values: Sequence[float]) -> Dict[str, float]:
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


def check_file(path: str, option: str) -> None:
    """Make sure that a file can be written, before the measurement.

    Raises:
        UserError: If not.
    """
    if os.path.isdir(path):
        raise UserError(f'{option} {path} is a folder; name a file')
    check_writable(os.path.dirname(os.path.abspath(path)), option)


def write_json(path: str, data: dict) -> None:
    """Write a file at once, so that nobody meets half of it."""
    unfinished = f'{path}.unfinished'
    with open(unfinished, 'w') as file:
        json.dump(data, file, indent=1)
    os.replace(unfinished, path)
