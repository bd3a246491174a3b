"""The field's words, in all code and pages."""

import re
import subprocess

from helpers import ROOT

# What is not said, and what is said instead. A first group that matches makes it right.
INSTEAD = {
    r'(ground[\s#_-]+)?truth': 'ground truth',
    r'picture': 'image or figure',
    r'drawn\s+scene': 'synthetic scene',
    r'\banew\b': 'again, or from the beginning',
    r'\bmend(?:s|ed|ing)?\b': 'adapt, or correct',
    r'\bhand(?:s|ed|ing)?\s+(?:\w+\s+)?on\b': 'output, or pass on',
}
# HTML's element, the names that an argument does not have, and this file's list.
QUOTED = ('<picture>', '</picture>', '(picture|source|img)', "'imgs', 'pictures'")
OWN = 'tests/test_words.py'


def files():
    """Python, Markdown and shell, tracked or new."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if name.endswith(('.py', '.md', '.sh')) and (ROOT / name).is_file()]


def wrong_words(text):
    """Line number, word and what to say of each in a text."""
    for quoted in QUOTED:
        text = text.replace(quoted, '')
    for pattern, right in INSTEAD.items():
        for found in re.finditer(pattern, text, re.IGNORECASE):
            if not found.lastindex:
                yield text.count('\n', 0, found.start()) + 1, found[0], right


def test_words_are_the_fields():
    names = files()
    assert len(names) > 300
    wrong = [
        f'{name}:{line}: {word!r}; say {right}'
        for name in names
        if name != OWN
        for line, word, right in wrong_words((ROOT / name).read_text())
    ]
    assert not wrong, '\n'.join(wrong)


def test_wrong_words_are_found_where_they_stand():
    text = 'the ground truth and\nground\n# truth, <picture>; Anew.\nthe truth, is_truth, hands them on\n'
    assert sorted(wrong_words(text)) == [
        (3, 'Anew', 'again, or from the beginning'),
        (4, 'hands them on', 'output, or pass on'),
        (4, 'truth', 'ground truth'),
        (4, 'truth', 'ground truth'),
    ]
