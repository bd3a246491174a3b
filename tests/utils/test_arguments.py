"""Arguments are taken by their whole names and shared forms alone."""

import argparse

import pytest

from scopevit.utils.arguments import SizeAction, add_arguments, scale, tool_parser


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


@pytest.mark.parametrize('text', ['0', '-1', 'nan', 'inf'])
def test_a_scale_is_above_zero(text):
    assert scale('0.75') == 0.75
    with pytest.raises(argparse.ArgumentTypeError, match='must be above 0'):
        scale(text)


@pytest.mark.parametrize('seed', ['-1', '4294967296', '1.5', 'x'])
def test_a_seed_is_one_that_all_generators_take(seed, capsys):
    parser = tool_parser('A tool.')
    add_arguments(parser, '--seed')
    assert parser.parse_args(['--seed', '4294967295']).seed == 2**32 - 1
    with pytest.raises(SystemExit):
        parser.parse_args(['--seed', seed])
    assert f"must be a whole number from 0 to 2**32 - 1, but is '{seed}'" in capsys.readouterr().err


def test_files_to_read_are_looked_for_by_what_their_arguments_are_called(tmp_path, capsys):
    parser = tool_parser('A tool.')
    add_arguments(parser, 'checkpoint')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT')
    add_arguments(parser, '--detector-config')
    (tmp_path / 'x.pth').touch()
    for words in (['https://example.org/x.pth'], [str(tmp_path / 'x.pth'), '--resume'], [str(tmp_path)]):
        assert parser.parse_args(words).checkpoint == words[0]
    for words, says in (
        (['no.pth'], 'error: checkpoint no.pth does not exist; check the path'),
        ([str(tmp_path), '--resume', 'no.pth'], 'error: checkpoint no.pth does not exist; check the path'),
        ([str(tmp_path), '--detector-config', 'no.py'], 'error: config no.py does not exist; check the path'),
    ):
        with pytest.raises(SystemExit, match=f'^{says}$'):
            parser.parse_args(words)
    with pytest.raises(SystemExit):  # what is wrong with the words comes first
        parser.parse_args(['no.pth', '--no-such-option'])
    assert 'unrecognized arguments: --no-such-option' in capsys.readouterr().err
