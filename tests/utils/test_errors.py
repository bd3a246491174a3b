"""Whose code an error was raised in."""

import contextlib
import importlib.util
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from mmengine.config import Config

from scopevit.utils.building import building
from scopevit.utils.errors import LAUNCH, ExplainedError, UserError, own_error, raise_own, user_errors


def caught(call):
    try:
        call()
    except Exception as error:
        return error


@pytest.fixture
def own(tmp_path):
    """A module of the user's own."""
    path = tmp_path / 'own.py'
    path.write_text("""
import json

def fail():
    json.loads('{')

def call(function):
    function()

def wrapped():
    try:
        fail()
    except ValueError as error:
        raise KeyError('x') from error
""")
    spec = importlib.util.spec_from_file_location('own', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_error_below_the_users_own_code_is_found_behind_those_raised_over_it(own):
    inner = caught(own.fail)
    assert own_error(inner) is inner
    outer = caught(own.wrapped)
    assert type(own_error(outer)) is json.JSONDecodeError
    with pytest.raises(json.JSONDecodeError):
        raise_own(outer)


def test_an_error_of_a_library_is_not_the_users_own():
    with ThreadPoolExecutor() as pool:
        error = pool.submit(json.loads, '{').exception()
    assert error.__traceback__ is not None
    assert own_error(error) is None
    raise_own(error)  # passes


def test_message_of_a_loaders_process_is_told_without_its_traceback():
    handed_over = (
        'Caught UserError in DataLoader worker\nTraceback ...\nscopevit.utils.errors.UserError: image is broken\n'
    )
    with pytest.raises(SystemExit, match='^error: image is broken$'), user_errors():
        raise UserError(handed_over)


def test_ctrl_c_while_mmengine_formats_a_config(monkeypatch, capsys):
    """MMEngine says that the config's syntax is wrong then."""

    def interrupted(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmengine.config.config.FormatCode', interrupted)
    cfg = Config(dict(a=1))
    with pytest.raises(SystemExit) as end, user_errors(), building(cfg):
        print(cfg.pretty_text)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'
    with pytest.raises(SyntaxError), user_errors():
        compile('(', 'file.py', 'exec')


def ended(error):
    """What user_errors makes of an error."""
    with pytest.raises((SystemExit, ValueError)) as end, user_errors():
        raise error
    return end.value


def test_of_several_processes_the_first_that_fails_says_so(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr('time.sleep', waits.append)
    for first in (UserError('no data'), ValueError('a bug')):
        monkeypatch.setenv(LAUNCH, str(tmp_path))
        assert str(first) in str(ended(first))
        for later in (UserError('no data'), ValueError('a bug'), RuntimeError('gloo: Connection closed by peer')):
            assert ended(later).code == 1
        monkeypatch.setenv(LAUNCH, str(tmp_path / 'gone'))  # nothing can be noted there
        assert 'no data' in str(ended(UserError('no data')))
        (tmp_path / 'failed').unlink()
    assert sum(waits) == 2 * (1 + 1 + 3 + 1)


def test_the_cause_of_an_explained_error_keeps_its_traceback(capsys):
    error = ExplainedError('found in the data')
    error.__cause__ = caught(lambda: 1 / 0)
    assert 'found in the data' in str(ended(error))
    assert capsys.readouterr().err.count('ZeroDivisionError') == 1


@pytest.fixture(params=[True, False], ids=['unbuffered', 'buffered'])
def unread(request, monkeypatch):
    """Standard output is a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(open(writer, 'wb', 0 if request.param else -1), write_through=request.param) as file:
        monkeypatch.setattr('sys.stdout', file)
        yield
        file.flush()  # as the interpreter does in the end


def printing(text, error=None):
    with user_errors():
        print(text)
        if error:
            raise error


@pytest.mark.parametrize('length', [10, 10**6])  # one that waits in the buffer, and one that does not fit into it
def test_what_nobody_reads_ends_quietly(length, unread, capsys):
    with contextlib.suppress(SystemExit):
        printing('x' * length)
    assert capsys.readouterr().err == ''


def test_an_error_is_told_though_nobody_reads_the_output(unread, capsys):
    with pytest.raises(SystemExit) as end:
        printing('', UserError('no data'))
    assert end.value.code in ('error: no data', 141)  # unbuffered, it does not come as far


def test_another_broken_pipe_is_no_end():
    with pytest.raises(BrokenPipeError), user_errors():
        raise BrokenPipeError
