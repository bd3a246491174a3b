"""Figures: panels with captions, pairs that one can tell apart, and what is said where nothing is found."""

import cv2
import numpy as np
import pytest
from mmengine.structures import BaseDataElement

from scopevit.apis.painter import BETWEEN, WITHIN, Painter, Panel, save_grid


def columns(path):
    """The widths of what is white and what is not, in a row of pixels through the images."""
    row = cv2.imread(str(path))[60].min(1) > 250
    edges = np.flatnonzero(np.diff(row.astype(int))) + 1
    return np.diff([0, *edges, len(row)]).tolist()


def test_a_gap_between_pairs_is_wider_than_within_and_captions_stand_above(tmp_path):
    pair = [
        Panel(np.full((90, 90, 3), 100, np.uint8), 'a.jpg: ground truth'),
        Panel(np.zeros((90, 90, 3), np.uint8), ''),
    ]
    save_grid([pair, pair, pair], 2, str(tmp_path / 'x.png'), width=424)
    left, within, right, between, *_ = columns(tmp_path / 'x.png')
    assert (left, within, right, between) == (98, WITHIN, 98, BETWEEN)
    above = cv2.imread(str(tmp_path / 'x.png'))[:20].min(axis=(0, 2))
    assert above[:98].min() < 100  # letters
    assert above[102:200].min() == 255


def test_items_of_one_panel_and_names_of_any_length_fit(tmp_path):
    panel = Panel(np.zeros((30, 60, 3), np.uint8), 'a_very_long_name_of_a_photograph_' * 9)
    save_grid([[panel]], 4, str(tmp_path / 'x.png'), width=200)
    assert cv2.imread(str(tmp_path / 'x.png')).shape[1] == 200


@pytest.mark.parametrize(
    ('scores', 'says'),
    [
        ([0.5, 0.31, 0.2], 'predicted: 2 boxes, score 0.3 or more'),
        ([0.9], 'predicted: 1 box, score 0.3 or more'),
        ([0.12, 0.05], 'predicted: no boxes, score 0.3 or more; best 0.12'),
        ([], 'predicted: no box of any score'),
    ],
)
def test_a_detectors_caption_says_the_threshold_and_the_best_score(scores, says):
    painter = Painter.__new__(Painter)
    painter.scope, painter.score_thr = 'mmdet', 0.3
    assert painter._describe(dict(pred_instances=dict(scores=scores))) == says
    assert painter._name(BaseDataElement(metainfo=dict(img_path='a/b.jpg')), 5) == 'b.jpg'
    assert painter._name(BaseDataElement(), 5) == 'item 5'
