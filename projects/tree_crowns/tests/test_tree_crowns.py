"""Tree crowns: tiles and their boxes, and a config that fits them."""

import json
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from helpers import ROOT
from projects.tree_crowns import make_crowns

(CONFIG,) = (ROOT / 'projects/tree_crowns/configs').glob('*.py')


def test_overlapping_tiles_cover_a_side_and_others_leave_out_the_rest():
    assert make_crowns.starts(1000, 400, 300) == [0, 300, 600]
    assert make_crowns.starts(1050, 400, 300) == [0, 300, 600, 650]
    assert make_crowns.starts(1000, 300, 300) == [0, 300, 600]
    assert make_crowns.starts(400, 400, 300) == [0]


def test_boxes_are_cut_at_a_tiles_edge_and_left_out_if_mostly_outside():
    boxes = [[10, 20, 30, 60], [90, 0, 108, 20], [95, 50, 120, 70], [200, 200, 220, 220]]
    assert make_crowns.clipped(boxes, 0, 0, 100) == [[10, 20, 20, 40], [90, 0, 10, 20]]
    assert make_crowns.clipped(boxes, 100, 100, 130) == [[100, 100, 20, 20]]


def test_photographs_become_splits_that_the_config_reads(tmp_path, monkeypatch, capsys):
    box = '<bndbox><xmin>50</xmin><ymin>60</ymin><xmax>90</xmax><ymax>120</ymax></bndbox>'
    xml = f'<annotation><object><name>Tree</name>{box}</object></annotation>'
    for names, *_ in make_crowns.SPLITS.values():
        for name in names:
            cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((420, 520, 3), np.uint8))
            (tmp_path / f'{name}.xml').write_text(xml)
    monkeypatch.setattr(sys, 'argv', ['make_crowns.py', str(tmp_path), '--out-dir', str(tmp_path / 'crowns')])
    make_crowns.main()
    assert 'val: 2 images, 1 crowns' in capsys.readouterr().out
    cfg = Config.fromfile(CONFIG)
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader)):
        dataset = loader.dataset
        content = json.loads((tmp_path / 'crowns' / dataset.ann_file).read_text())
        assert [c['name'] for c in content['categories']] == list(dataset.metainfo.classes)
        assert (tmp_path / 'crowns' / dataset.data_prefix.img / content['images'][0]['file_name']).is_file()
        assert content['annotations'][0]['bbox'] == [50, 60, 40, 60], split
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs

    (tmp_path / 'OSBS_029.xml').unlink()
    with pytest.raises(SystemExit, match=r'OSBS_029.xml does not exist; give the folder data'):
        make_crowns.main()
