"""Whose code an error was raised in."""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from scopevit.utils.errors import UserError, own_error, raise_own, user_errors


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
