"""Whose fault an error is: what a user can correct is told in one message, everything else keeps its traceback."""

import difflib
import os
import re
import select
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from .shipped import PACKAGE, shipped

# Packages whose code is nobody's own, wherever they are installed.
_LIBRARIES = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'mmpose', 'scopevit'}
_FOLDERS = (*(sysconfig.get_path(name) for name in ('stdlib', 'platstdlib', 'purelib', 'platlib')), str(PACKAGE))

LAUNCH = 'SCOPEVIT_LAUNCH'
"""Environment variable with a folder that the processes of one launch share, on one machine."""
_OTHER_IS_GONE = re.compile(r'[Cc]onnection (closed|reset)|[Bb]roken pipe')  # as gloo and NCCL word it


class UserError(RuntimeError):
    """Something outside the code is wrong (a path, a file, an option); the message says what to do."""


class ExplainedError(UserError):
    """What may be a bug and what may have led to it; the traceback of its cause is shown as well."""


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with ``error: ...`` and status 1 on a :class:`UserError`.

    Above it stands the traceback of its cause, if that may be a bug in the user's own code.

    Of several processes of one launch the first that fails says so: the others fail as a consequence.
    """
    with unread_output():
        try:
            with interruptions_kept():
                yield
        except UserError as error:
            leave_it_to_the_first(error)
            if isinstance(error, ExplainedError) or is_own_bug(error.__cause__):
                traceback.print_exception(error.__cause__)
            # A data loader's worker hands over its whole traceback; the message stands behind the error's name.
            message = str(error).rpartition(f'{UserError.__module__}.{UserError.__name__}: ')[2]
            sys.exit(f'error: {message.strip()}')
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            leave_it_to_the_first(error)
            raise


@contextmanager
def interruptions_kept() -> Iterator[None]:
    """Let Ctrl-C pass while MMEngine formats a config, which takes seconds: it takes all for a mistake in the text."""
    try:
        yield
    except SyntaxError as error:
        if isinstance(error.__context__, (KeyboardInterrupt, SystemExit)):
            raise error.__context__ from None
        raise


@contextmanager
def unread_output() -> Iterator[None]:
    """End the program quietly once nobody reads what it prints any more, as behind ``| head``."""
    try:
        yield
    except BrokenPipeError:
        if not _is_unread():
            raise
        sys.exit(141)  # as a shell says of a program that the signal SIGPIPE has ended
    finally:
        _is_unread()


def _is_unread() -> bool:
    """Whether standard output is a pipe without a reader; what is left to print then goes nowhere."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, ValueError, OSError):  # there is none, or it is no file
        return False
    try:
        sys.stdout.flush()
        if not hasattr(select, 'poll'):  # Windows
            return False
        ends = select.poll()
        ends.register(number, 0)
        if not any(event & select.POLLERR for _, event in ends.poll(0)):
            return False
    except BrokenPipeError:
        pass
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)  # else the interpreter's last flush would fail
    os.close(nowhere)
    return True


def leave_it_to_the_first(error: Exception | None = None) -> None:
    """End this process in silence if another one of the launch has failed before."""
    if LAUNCH not in os.environ:
        return
    if error and other_is_gone(error):
        time.sleep(3)  # in which the launcher ends this process, unless the other one ran on another machine
    try:
        os.close(os.open(os.path.join(os.environ[LAUNCH], 'failed'), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        time.sleep(1)  # in which the first one says it, before the launcher ends all
        sys.exit(1)
    except OSError:  # rather twice than never
        pass


def other_is_gone(error: BaseException) -> bool:
    """Whether an error says that another process of the launch, which this one was talking to, has ended."""
    return _OTHER_IS_GONE.search(str(error)) is not None


def one_line(error: BaseException, most: int = 300) -> str:
    """An exception's kind and message in one line of at most ``most`` characters and its kind."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:most]}'


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """``; did you mean ...?``, a hint that ends a message about a name that there is not; empty if nothing is like it.

    Args:
        known: The names that there are, or a dict with what to call each.
        most: How many to name.
        cutoff: How like they have to be, from 0 to 1.
    """
    close = difflib.get_close_matches(name, known, n=most, cutoff=cutoff)
    called = [known[other] if isinstance(known, Mapping) else other for other in close]
    return f'; did you mean {" or ".join(called)}?' if close else ''


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while handling, the last one first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def own_error(error: BaseException | None) -> BaseException | None:
    """The first of an error's chain that was raised in or below a file of the user's own: maybe a bug there.

    Such files are all but Python's, those of installed packages, this package and its tools: modules
    that a config imports, and the config itself while it is read. None if there is no such error.
    """
    for link in reversed(list(chain(error))):
        if any(
            _is_own(frame.f_code.co_filename, frame.f_globals) for frame, _ in traceback.walk_tb(link.__traceback__)
        ):
            return link
    return None


def is_own_bug(error: BaseException | None) -> bool:
    """Whether something was raised in the user's own code that does not say itself what to do."""
    own = own_error(error)
    return own is not None and not isinstance(own, UserError)


def raise_own(error: BaseException) -> None:
    """Raise the error of a chain that may be a bug in the user's own code, if there is one, with its traceback."""
    own = own_error(error)
    if own is not None:
        raise own from own.__cause__


def _is_own(path: str, names: dict) -> bool:
    if path.startswith('<') or str(names.get('__name__')).partition('.')[0] in _LIBRARIES:
        return False
    path = os.path.realpath(path)
    if 'site-packages' in path or 'dist-packages' in path:
        return False
    folders = (*_FOLDERS, str(shipped('tools')))
    return not any(path.startswith(os.path.realpath(folder) + os.sep) for folder in folders)
