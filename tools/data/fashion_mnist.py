"""Fashion-MNIST in the files that mmpretrain's FashionMNIST reads.

    python tools/data/fashion_mnist.py unpack

``unpack`` puts the subset that comes with this repository (or, with ``--source``, any folder of
the four .gz files) under data/; ``subset`` is how the subset was made from the full set.
"""

import argparse
import gzip
import os
import shutil
import struct
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SUBSET = os.path.join(HERE, 'fashion_mnist_subset')
IMAGES, LABELS = 'images-idx3-ubyte', 'labels-idx1-ubyte'
NAMES = [f'{split}-{kind}' for split in ('train', 't10k') for kind in (IMAGES, LABELS)]


def read_idx(path: str) -> tuple:
    """Read a gzipped idx file of bytes: its dimensions and its data.

    Raises:
        ValueError: If the file is not complete.
    """
    try:
        with gzip.open(path, 'rb') as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise ValueError(f'{path} cannot be read ({error}); get the file again') from None
    ndim = content[3] if len(content) > 3 else 0
    start = 4 + 4 * ndim
    dims = struct.unpack(f'>{ndim}I', content[4:start]) if len(content) >= start else ()
    size = 1
    for dim in dims:
        size *= dim
    if content[:3] != b'\x00\x00\x08' or not dims or len(content) != start + size:
        raise ValueError(f'{path} is not a complete idx file of bytes; get the file again')
    return dims, content[start:]


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
            dims, data = read_idx(os.path.join(source, f'{name}.gz'))
            with open(os.path.join(temporary, name), 'wb') as file:
                file.write(header(dims) + data)
        os.chmod(temporary, 0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f'unpacked {source} into {out}')


def subset(source: str, out: str, train_per_class: int, test_per_class: int) -> None:
    """Write the first images of each class, in file order, as gzipped idx files."""
    os.makedirs(out, exist_ok=True)
    for split, per_class in (('train', train_per_class), ('t10k', test_per_class)):
        (_, height, width), images = read_idx(os.path.join(source, f'{split}-{IMAGES}.gz'))
        _, labels = read_idx(os.path.join(source, f'{split}-{LABELS}.gz'))
        taken = [0] * 10
        chosen = []
        for i, label in enumerate(labels):
            if taken[label] < per_class:
                taken[label] += 1
                chosen.append(i)
        area = height * width
        write_gz(
            os.path.join(out, f'{split}-{IMAGES}.gz'),
            header((len(chosen), height, width)) + b''.join(images[i * area : (i + 1) * area] for i in chosen),
        )
        write_gz(os.path.join(out, f'{split}-{LABELS}.gz'), header((len(chosen),)) + bytes(labels[i] for i in chosen))
        print(f'{split}: {len(chosen)} of {len(labels)} images')


def header(dims: tuple) -> bytes:
    return b'\x00\x00\x08' + bytes([len(dims)]) + struct.pack(f'>{len(dims)}I', *dims)


def write_gz(path: str, content: bytes) -> None:
    """Write without a time stamp, so that the same content gives the same file."""
    with open(path, 'wb') as raw, gzip.GzipFile('', 'wb', compresslevel=9, fileobj=raw, mtime=0) as file:
        file.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('unpack', allow_abbrev=False, help='unpack the four files for training')
    command.add_argument(
        '--source', default=SUBSET, metavar='DIR', help='folder of the four .gz files (default: the subset)'
    )
    out_dir = 'folder to write to (default: %(default)s)'
    command.add_argument('--out-dir', metavar='DIR', default='data/fashion_mnist_subset', help=out_dir)
    command = commands.add_parser(
        'subset', allow_abbrev=False, help='take the first images of each class of the full set'
    )
    command.add_argument('source', metavar='SOURCE', help='folder of the four .gz files of the full set')
    out_dir = 'folder to write to (default: the subset of this repository)'
    command.add_argument('--out-dir', metavar='DIR', default=SUBSET, help=out_dir)
    count = 'images of a class (default: %(default)s)'
    command.add_argument('--train-per-class', type=int, default=600, metavar='N', help=f'training {count}')
    command.add_argument('--test-per-class', type=int, default=100, metavar='N', help=f'test {count}')
    args = parser.parse_args()
    try:
        if args.command == 'unpack':
            unpack(args.source, args.out_dir)
        else:
            subset(args.source, args.out_dir, args.train_per_class, args.test_per_class)
    except (OSError, ValueError) as error:
        parser.exit(1, f'error: {error}\n')


if __name__ == '__main__':
    main()
