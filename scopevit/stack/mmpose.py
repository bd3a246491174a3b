"""Installs mmpose, which ``pip install mmpose`` no longer can.

It declares two packages that stand in the way: chumpy, which it never imports and which no longer
builds, and xtcocotools, which has compiled wheels up to Python 3.11, for numpy 1. Of xtcocotools all
but one module is Python, and that one, masks, is pycocotools' own: its Python files over pycocotools
make a package for every Python.
"""

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

XTCOCOTOOLS, MMPOSE = '1.14.3', '==1.3.2'
# Where the compiled module was: COCO's masks, as pycocotools has them.
MASKS = 'from pycocotools._mask import area, decode, encode, frPyObjects, iou, merge, toBbox  # noqa: F401\n'


def make_pure_wheel(compiled: Path, folder: Path) -> Path:
    """Make a wheel for every Python of the Python files of a compiled wheel of xtcocotools."""
    name, version = compiled.name.split('-')[:2]
    info = f'{name}-{version}.dist-info'
    pure = folder / f'{name}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(compiled) as source, zipfile.ZipFile(pure, 'w', zipfile.ZIP_DEFLATED) as target:
        files = {path: source.read(path) for path in source.namelist() if not path.endswith(('.so', '.pyd', '/RECORD'))}
        files[f'{name}/_mask.py'] = MASKS.encode()
        files[f'{info}/WHEEL'] = b'Wheel-Version: 1.0\nGenerator: scopevit\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        for path, content in files.items():
            target.writestr(path, content)
        target.writestr(f'{info}/RECORD', ''.join(f'{path},,\n' for path in [*files, f'{info}/RECORD']))
    return pure


def pip(*words: object) -> None:
    """Run the pip of this Python."""
    subprocess.run([sys.executable, '-m', 'pip', *map(str, words)], check=True)


def download_xtcocotools(folder: Path) -> None:
    """Put a compiled wheel into a folder, one for any machine: the Python files are the same in each."""
    wheel = ('--only-binary=:all:', '--python-version', '3.11', '--platform', 'manylinux2014_x86_64')
    pip('download', '--no-deps', *wheel, '--dest', folder, f'xtcocotools=={XTCOCOTOOLS}')


def works(name: str, version: str, module: str) -> bool:
    """Whether a package of a version is there and imports, in a process of its own."""
    try:
        there = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    command = [sys.executable, '-c', f'import {module}']
    return there == version and subprocess.run(command, capture_output=True).returncode == 0


def install(version: str) -> None:
    """Install mmpose and xtcocotools into the environment of this Python, unless they are there."""
    if not works('xtcocotools', XTCOCOTOOLS, 'xtcocotools.mask'):
        with tempfile.TemporaryDirectory() as folder:
            download_xtcocotools(Path(folder))
            pure = make_pure_wheel(next(Path(folder).glob('xtcocotools-*.whl')), Path(folder))
            pip('install', '--no-deps', '--force-reinstall', pure)
    pip('install', '--no-deps', f'mmpose{version}')  # which asks no index for one that is there


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='scopevit install-mmpose', description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument('--version', default=MMPOSE, metavar='SPEC', help='version of mmpose (default: %(default)s)')
    version = parser.parse_args().version
    try:
        if importlib.util.find_spec('pip') is None:  # uv leaves it out
            subprocess.run([sys.executable, '-m', 'ensurepip'], check=True)
        install(version)
    except subprocess.CalledProcessError as error:
        sys.exit(
            f'error: pip could not do this: {" ".join(error.cmd[2:])}; its words are above '
            '(python -m scopevit doctor tells what is wrong with the environment)'
        )


if __name__ == '__main__':
    main()
