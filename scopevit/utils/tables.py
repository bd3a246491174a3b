"""Tables as Markdown has them."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table whose columns line up; the first row is its header, the first columns are text, others numbers."""
    columns = []
    for number, column in enumerate(zip(*rows)):
        is_text, width = number < text_columns, max(map(len, column))
        header, *cells = (cell.ljust(width) if is_text else cell.rjust(width) for cell in column)
        columns.append([header, '-' * width if is_text else '-' * (width - 1) + ':', *cells])
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in zip(*columns))
