"""Arguments are taken by their whole names and shared forms alone."""

import argparse

import pytest

from scopevit.utils.arguments import SizeAction, add_arguments, tool_parser


def test_an_option_that_is_no_more_is_refused(capsys):
    parser = tool_parser('A tool.')
    add_arguments(parser, '--out-dir', '--batch-size')
    with pytest.raises(SystemExit):
        parser.parse_args(['--out', 'results', '--batch', '2'])
    assert 'unrecognized arguments: --out results --batch 2' in capsys.readouterr().err


def test_a_size_is_height_and_width_or_one_number():
    parser = argparse.ArgumentParser()
    parser.add_argument('--size', nargs='+', action=SizeAction)
    parser.add_argument('--sizes', nargs='+', action=SizeAction, default=[])
    assert parser.parse_args(['--size', '64', '96']).size == (64, 96)
    assert parser.parse_args(['--size', '64']).size == (64, 64)
    assert parser.parse_args(['--sizes', '8', '--sizes', '16', '24']).sizes == [(8, 8), (16, 24)]
