"""Errors that a user can mend: the tools print them as one message, without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(RuntimeError):
    """Something outside the code is wrong (a path, a file, an option); the message says what to do."""


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with ``error: ...`` and status 1 on a :class:`UserError`."""
    try:
        yield
    except UserError as error:
        # A data loader's worker hands over its whole traceback; the message stands behind the error's name.
        message = str(error).rpartition(f'{UserError.__module__}.{UserError.__name__}: ')[2]
        sys.exit(f'error: {message.strip()}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException, most: int = 300) -> str:
    """An exception's kind and message in one line of at most ``most`` characters and its kind."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:most]}'
