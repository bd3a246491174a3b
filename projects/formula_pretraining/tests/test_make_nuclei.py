"""Nuclei: tiles of training and validation that do not overlap, and a config that reads them."""

import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from helpers import ROOT
from projects.formula_pretraining import make_nuclei

CONFIG = ROOT / 'projects/formula_pretraining/configs/scopevit-xtiny_fpn_1xb8-30e_nuclei-128x128.py'


def test_an_image_becomes_tiles_that_the_config_reads(tmp_path, monkeypatch, capsys):
    image, mask = np.zeros((2, 512, 512), np.uint16)
    image[256:, 256:], image[0, 0], mask[300:310, 300:310] = 47, 235, 7
    cv2.imwrite(str(tmp_path / 'img2d.tif'), image)
    cv2.imwrite(str(tmp_path / 'mask2d.tif'), mask)
    command = ['make_nuclei.py', str(tmp_path), '--out-dir', str(tmp_path / 'nuclei')]
    monkeypatch.setattr(sys, 'argv', command)
    make_nuclei.main()
    assert capsys.readouterr().out == 'train: 75 images\nval: 4 images\n'

    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    train, val = (
        DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'data_root': str(tmp_path / 'nuclei')})
        for split in ('train', 'val')
    )
    assert (len(train), len(val)) == (75, 4)
    assert train[0]['inputs'].shape == (3, 128, 128)
    # The validation's quarter alone has grey 47, which is 51 of 255
    assert {int(val[i]['inputs'].max()) for i in range(4)} == {51}
    assert max(cv2.imread(train.get_data_info(i)['img_path']).min() for i in range(75)) == 0
    labels = [val[i]['data_samples'].gt_sem_seg.data for i in range(4)]
    assert sorted(int(label.sum()) for label in labels) == [0, 0, 0, 100]

    (tmp_path / 'mask2d.tif').unlink()
    with pytest.raises(SystemExit, match='has no mask2d.tif; give data/images of the unpacked package stardist'):
        make_nuclei.main()
    cv2.imwrite(str(tmp_path / 'mask2d.tif'), mask[:100])
    with pytest.raises(SystemExit, match='are not those of stardist 0.9.2'):
        make_nuclei.main()
