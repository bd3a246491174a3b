"""Fashion-MNIST in the files that mmpretrain's FashionMNIST reads.

    python tools/data/fashion_mnist.py unpack

puts the subset that comes with this repository (or, with ``--source``, any folder of the four .gz
files, such as those of the full set) under data/.
"""

import argparse
import gzip
import math
import os
import shutil
import struct
import tempfile

SUBSET = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'fashion_mnist_subset')
NAMES = [f'{split}-{kind}' for split in ('train', 't10k') for kind in ('images-idx3-ubyte', 'labels-idx1-ubyte')]


def read_idx(path: str) -> bytes:
    """The content of a gzipped idx file of bytes: a header with its dimensions, then its data.

    Raises:
        ValueError: If the file is not complete.
    """
    try:
        with gzip.open(path, 'rb') as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise ValueError(f'{path} cannot be read ({error}); get the file again') from None
    ndim = 3 if 'idx3' in os.path.basename(path) else 1
    start = 4 + 4 * ndim
    dims = struct.unpack(f'>{ndim}I', content[4:start]) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, 8, ndim)) or len(content) != start + math.prod(dims):
        raise ValueError(f'{path} is not a complete idx file of bytes; get the file again')
    return content


def unpack(source: str, out: str) -> None:
    """Unpack the four files of ``source`` into ``out``, all or nothing."""
    if all(os.path.isfile(os.path.join(out, name)) for name in NAMES):
        print(f'{out} is there already')
        return
    if os.path.exists(out) and os.listdir(out):
        raise ValueError(f'{out} exists but is not a complete Fashion-MNIST folder; move it away or choose --out-dir')
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=parent, prefix='.fashion_mnist-')
    try:
        for name in NAMES:
            content = read_idx(os.path.join(source, f'{name}.gz'))
            with open(os.path.join(temporary, name), 'wb') as file:
                file.write(content)
        os.chmod(temporary, 0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f'unpacked {source} into {out}')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('command', choices=('unpack',), metavar='unpack', help='unpack the four files for training')
    parser.add_argument(
        '--source', default=SUBSET, metavar='DIR', help='folder of the four .gz files (default: the subset)'
    )
    out_dir = 'folder to write to (default: %(default)s)'
    parser.add_argument('--out-dir', metavar='DIR', default='data/fashion_mnist_subset', help=out_dir)
    args = parser.parse_args()
    try:
        unpack(args.source, args.out_dir)
    except (OSError, ValueError) as error:
        parser.exit(1, f'error: {error}\n')


if __name__ == '__main__':
    main()
