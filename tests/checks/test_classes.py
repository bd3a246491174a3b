"""Classes and labels of data are compared with those that heads tell apart."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from scopevit.checks.classes import (
    check_class_count,
    check_labels,
    check_names_are_listed,
    check_softmax,
    classes_of,
    metainfo,
)


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


@pytest.mark.parametrize(
    ('settings', 'is_named'),
    [
        (dict(num_classes=1), True),
        (dict(num_classes=2), False),
        (dict(num_classes=2, out_channels=1, threshold=0.5), True),
        (dict(num_classes=1, loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True)), False),
    ],
)
def test_softmax_over_one_class_is_refused(settings, is_named):
    from mmseg.models.decode_heads import FCNHead

    model = nn.Module()
    with DefaultScope.overwrite_default_scope('mmseg'):
        model.decode_head = FCNHead(in_channels=8, channels=8, in_index=0, norm_cfg=dict(type='BN'), **settings)
    findings = list(check_softmax(model))
    assert len(findings) == is_named
    assert all('over which softmax is always 1 and the loss 0' in finding.text for finding in findings)
    assert all(finding.severity == 'error' for finding in findings)


def test_one_remedy_where_the_file_has_as_many_classes_as_the_head():
    found = next(check_class_count('train', ['a', 'b', 'c', 'd'], Model(), in_file=['a', 'b', 'd']))
    assert found.text.endswith("num_classes is 3: write metainfo=dict(classes=('a', 'b', 'd')) in the data sets")
    assert metainfo(['a']) == "metainfo=dict(classes=('a',))"


def test_a_text_in_place_of_a_list_of_classes_is_named():
    (found,) = check_names_are_listed('val', 'tree')
    assert (found.severity, found.text) == ('error', "classes is a text: write classes=('tree',), with a comma")
    assert list(check_names_are_listed('val', ('tree',))) == []
