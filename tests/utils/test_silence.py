"""What libraries say of themselves stays from the screen for a time; what a program prints does so if asked for."""

import logging
import sys
import warnings

import pytest

from scopevit.utils.silence import silence


@pytest.mark.parametrize('prints', [False, True])
def test_what_is_kept_from_the_screen(prints, capsys, recwarn, caplog):
    caplog.set_level(logging.INFO)
    with silence(prints):
        print('printed')
        print('in red', file=sys.stderr)
        warnings.warn('warned', stacklevel=1)
        logging.info('told')
        logging.error('wrong')
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == (('', '') if prints else ('printed\n', 'in red\n'))
    assert caplog.messages == ['wrong']
    assert not recwarn
    logging.info('told again')
    assert caplog.messages == ['wrong', 'told again']
