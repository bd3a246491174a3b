"""The data set that comes along."""

import collections
import gzip
import shutil

import pytest

from helpers import ROOT, fails_cleanly, tool_here

SUBSET = ROOT / 'tools' / 'data' / 'fashion_mnist_subset'


def test_subset_is_balanced_small_and_read_by_mmpretrain(fashion_mnist):
    from mmpretrain.datasets import FashionMNIST

    for split, count in (('train', 600), ('test', 100)):
        dataset = FashionMNIST(str(fashion_mnist), split=split, test_mode=split == 'test', download=False)
        labels = collections.Counter(int(dataset.get_data_info(i)['gt_label']) for i in range(len(dataset)))
        assert labels == {c: count for c in range(10)}
        assert dataset.get_data_info(0)['img'].shape == (28, 28)
    assert sum(file.stat().st_size for file in SUBSET.iterdir()) < 5e6


def test_unpacking_again_changes_nothing(fashion_mnist):
    before = {file: file.stat().st_mtime_ns for file in fashion_mnist.iterdir()}
    assert (
        'is there already'
        in tool_here('data/fashion_mnist.py', 'unpack', '--out-dir', fashion_mnist, check=True).stdout
    )
    assert before == {file: file.stat().st_mtime_ns for file in fashion_mnist.iterdir()}


@pytest.mark.parametrize('damage', ['truncated', 'missing', 'short'])
def test_damaged_source_leaves_nothing_behind(damage, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(SUBSET, source)
    file = source / 't10k-labels-idx1-ubyte.gz'
    if damage == 'missing':
        file.unlink()
    elif damage == 'truncated':
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1]))
    words = ('unpack', '--source', source, '--out-dir', tmp_path / 'data' / 'out')
    fails_cleanly(tool_here('data/fashion_mnist.py', *words), file.name)
    assert list((tmp_path / 'data').iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    fails_cleanly(tool_here('data/fashion_mnist.py', 'unpack', '--out-dir', tmp_path), 'choose --out-dir')
    assert [file.name for file in tmp_path.iterdir()] == ['mine.txt']
