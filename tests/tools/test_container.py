"""The container's files, as far as they can be tested without building an image."""

import fnmatch
import re
import subprocess

from helpers import ROOT
from scopevit.__main__ import COMMANDS
from scopevit.stack.plan import TORCH_INDEX

FOLDER = ROOT / 'tools/container'
DOCKERFILE = (FOLDER / 'Dockerfile').read_text()
SET_UP = (ROOT / 'tools/setup.sh').read_text()


def test_what_the_steps_name_exists():
    scripts = re.findall(r'\b(?:tools|configs|docs)/[\w./-]+', DOCKERFILE + (ROOT / 'docs/install.md').read_text())
    assert {'tools/setup.sh', 'tools/container/Dockerfile', 'tools/dist_train.sh'} <= set(scripts)
    assert [name for name in scripts if not (ROOT / name.rstrip('.')).exists()] == []
    (command,) = re.findall(r'^CMD \["scopevit", "(.+)"\]', DOCKERFILE, flags=re.MULTILINE)
    assert command in COMMANDS


def test_the_steps_are_those_of_the_set_up():
    libraries = re.search(r'apt-get install -y (lib[\w.-]+ lib[\w.-]+)', SET_UP).group(1).split()
    assert all(f' {library} ' in DOCKERFILE for library in libraries)
    minor = int(re.search(r'^FROM python:3\.(\d+)-', DOCKERFILE, flags=re.MULTILINE).group(1))
    assert 10 <= minor <= 13
    index = re.search(r'--build-arg TORCH_INDEX_URL=(\S+)', DOCKERFILE).group(1)
    assert index == f'{TORCH_INDEX}/cpu'
    assert DOCKERFILE.index('USER scopevit') < DOCKERFILE.index('bash tools/setup.sh')


def test_what_is_left_out_is_nothing_of_the_repository():
    patterns = [line for line in (FOLDER / 'Dockerfile.dockerignore').read_text().splitlines() if line[0] != '#']
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        '\n'
    )

    def is_left_out(path):
        parts = path.split('/')
        ways = ['/'.join(parts[:n]) for n in range(1, len(parts) + 1)]
        return any(
            fnmatch.fnmatchcase(
                way.rpartition('/')[2] if pattern.startswith('**/') else way, pattern.removeprefix('**/')
            )
            for pattern in patterns
            for way in ways
            if '/' not in pattern.removeprefix('**/') or pattern.startswith('**/')
        )

    assert [path for path in tracked if path and is_left_out(path)] == []
    assert all(
        map(is_left_out, ('.git/HEAD', 'data/coco/x.jpg', 'scopevit/models/ops/_attention_avx2.so', '.venv/bin'))
    )
