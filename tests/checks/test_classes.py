"""Classes and labels of data are compared with those that heads tell apart."""

from types import SimpleNamespace

import torch

from scopevit.checks.classes import check_class_count, check_labels, classes_of


class Model(torch.nn.Module):
    """A head for three classes, and mmpretrain's preprocessor, which mixes labels of three."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 3)
        self.data_preprocessor = torch.nn.Identity()
        self.head.num_classes = self.data_preprocessor.num_classes = 3


def test_panoptic_data_have_the_things_classes():
    data = SimpleNamespace(metainfo=dict(classes=('cat', 'sky'), thing_classes=('cat',), stuff_classes=('sky',)))
    assert classes_of(data) == ('cat',)
    assert classes_of(SimpleNamespace(metainfo=dict(classes=('cat', 'sky')))) == ('cat', 'sky')
    assert classes_of(SimpleNamespace()) is None


def test_number_of_classes():
    assert list(check_class_count('train', ['a', 'b', 'c'], Model())) == []
    found = list(check_class_count('train', ['a', 'b'], Model()))
    assert [finding.severity for finding in found] == ['warning'] * 2
    assert str(found[0]).startswith(
        'train: the data have 2 classes (a, b), but model.head.num_classes is 3: set it to 2'
    )
    assert 'but data_preprocessor.num_classes is 3' in found[1].text
    assert list(check_class_count('train', None, Model())) == list(check_class_count('train', ['a'], None)) == []


def test_labels_beyond_the_classes():
    assert list(check_labels('val', [0, 2], None, Model())) == []
    beyond = list(check_labels('val', [0, 3], ['a', 'b', 'c', 'd'], Model()))
    assert {finding.severity for finding in beyond} == {'error'}
    assert 'have label 3, but model.head.num_classes is 3' in beyond[0].text
    assert 'classes of the data (a, b, c, ...), counting from 0' in beyond[0].text
    assert 'label -1' in next(check_labels('val', [-1], None, Model())).text
