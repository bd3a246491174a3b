"""Class folders, looked at before a training."""

import shutil

from mmpretrain.datasets import CustomDataset

from helpers import image_folders
from scopevit.checks.part import Part
from scopevit.checks.training import check_quickly


def test_class_folders_that_differ_between_splits_are_told_before_a_training(tmp_path):
    """Labels follow the order of the folders: without ``class_1`` the label 1 would mean ``class_2``."""
    root = image_folders(tmp_path, classes=3, train=2, val=1)

    def found():
        splits = ('train', 'val')
        data = [CustomDataset(data_root=str(root), data_prefix=split, pipeline=[]) for split in splits]
        parts = [Part(split, f'{split}_dataloader.dataset', d, None) for split, d in zip(splits, data)]
        return [finding.text for finding in check_quickly(parts) if 'class folders are not those' in finding.text]

    assert found() == []
    shutil.rmtree(root / 'val' / 'class_1')
    (text,) = found()
    assert 'class_1' in text
