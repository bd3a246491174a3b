"""The data set that comes along, and the pictures."""

import collections

import cv2
import pytest

from helpers import ROOT, TOY, fails_cleanly, tool_here

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
    assert 'is there already' in tool_here('data/fashion_mnist.py', 'unpack', '--out', fashion_mnist, check=True).stdout
    assert before == {file: file.stat().st_mtime_ns for file in fashion_mnist.iterdir()}


@pytest.mark.parametrize('damage', ['truncated', 'missing', 'short'])
def test_damaged_source_leaves_nothing_behind(damage, tmp_path):
    import gzip
    import shutil

    source = tmp_path / 'source'
    shutil.copytree(SUBSET, source)
    file = source / 't10k-labels-idx1-ubyte.gz'
    if damage == 'missing':
        file.unlink()
    elif damage == 'truncated':
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1]))
    words = ('unpack', '--source', source, '--out', tmp_path / 'data' / 'out')
    fails_cleanly(tool_here('data/fashion_mnist.py', *words), file.name)
    assert list((tmp_path / 'data').iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    fails_cleanly(tool_here('data/fashion_mnist.py', 'unpack', '--out', tmp_path), 'choose --out')
    assert [file.name for file in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.slow
def test_pictures(toy_run, toy_options, fashion_mnist, tmp_path):
    tool_here('visualization/plot_curves.py', toy_run, '--out', tmp_path / 'curves.png', check=True)
    tool_here('test.py', TOY, toy_run / 'epoch_4.pth', '--work-dir', tmp_path, *toy_options, check=True)
    config = toy_run / 'toy_classifier.py'  # as it was run, with its data root
    tool_here(
        'visualization/draw_predictions.py',
        config,
        tmp_path / 'predictions.pkl',
        '--out',
        tmp_path / 'p.png',
        check=True,
    )
    for name in ('curves.png', 'p.png'):
        picture = cv2.imread(str(tmp_path / name))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10  # something was drawn

    result = tool_here('visualization/plot_curves.py', tmp_path / 'nowhere')
    fails_cleanly(result, 'has no training log')
    result = tool_here('visualization/draw_predictions.py', config, tmp_path / 'no.pkl')
    fails_cleanly(result, 'no.pkl does not exist')
