"""Figures: panels with captions, pairs that one can tell apart, and what is said where nothing is found."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from scopevit.apis.painter import BETWEEN, WITHIN, Painter, Panel, _fitting, draw_classes, save_grid


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
    ('width', 'says'),
    [
        (300, '000000500099.jpg: ground truth'),
        (190, '…00099.jpg: ground truth'),
        (110, 'ground truth'),
        (50, 'GT'),
        (16, '…'),
    ],
)
def test_a_caption_without_room_for_its_name_keeps_the_end_or_says_that_it_is_the_ground_truth(width, says):
    shorter = '…00099.jpg: ground truth', 'ground truth', 'GT'
    assert _fitting(Panel(np.zeros((1, 1, 3), np.uint8), '000000500099.jpg: ground truth', shorter), width) == says


def test_images_of_a_row_are_equally_high_and_fill_it(tmp_path):
    shapes = ((100, 50), (100, 150), (50, 50))  # the first two in a row, the last alone in the next one
    save_grid([[Panel(np.zeros((*shape, 3), np.uint8), '')] for shape in shapes], 2, str(tmp_path / 'x.png'), width=424)
    assert columns(tmp_path / 'x.png') == [100, BETWEEN, 300]
    image = cv2.imread(str(tmp_path / 'x.png'))
    assert image.shape[0] == 2 * (22 + 200) + BETWEEN  # captions are 22 pixels high
    assert np.count_nonzero(image[-1].max(1) == 0) == 200  # no higher than the row before
    wide = [[Panel(np.zeros((10, 400, 3), np.uint8), '')], [Panel(np.zeros((100, 100, 3), np.uint8), '')]]
    save_grid(wide, 1, str(tmp_path / 'x.png'), width=400)  # which does not make the next one small
    assert cv2.imread(str(tmp_path / 'x.png')).shape[0] == 2 * 22 + 10 + 400 + BETWEEN


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


class Images:
    """A classifier's data set."""

    def __init__(self, **metainfo):
        self.metainfo = metainfo

    def get_data_info(self, index):
        return dict(img=np.full((8, 8), index, np.uint8))


def drawn(dataset, results):
    """Title and colour of each image, and the heading."""
    figure = draw_classes(dataset, results, list(range(len(results))), 2)
    axes = figure.axes[: len(results)]
    return [(part.get_title(), part.title.get_color()) for part in axes], figure.get_suptitle()


def labelled(predicted, labels, **more):
    return dict(pred_label=torch.tensor(predicted), gt_label=torch.tensor(labels), **more)


def test_classes_without_names_have_numbers_and_predictions_without_scores_are_drawn():
    scores = torch.tensor([0.1, 0.7, 0.2])
    named = [labelled([1], [1], pred_score=scores), labelled([1], [0], pred_score=scores)]
    says = '1 of 2 test images right (50.0%); 2 of them:'
    assert drawn(Images(classes=('cat, felis', 'dog', 'yak')), named) == (
        [('dog 70%', 'darkgreen'), ('dog 70%\nnot cat', 'red')],
        says,
    )
    # As ann_file without names gives them, and as ImageNet-C's metric leaves them.
    assert drawn(Images(), named) == ([('1 70%', 'darkgreen'), ('1 70%\nnot 0', 'red')], says)
    assert drawn(Images(), [labelled([1], [1]), labelled([12], [0])])[0] == [('1', 'darkgreen'), ('12\nnot 0', 'red')]


def test_images_with_several_labels_are_drawn_and_those_without_are_not_judged():
    results = [labelled([2, 0], [0, 2]), labelled([], [1]), labelled([0], [0, 1])]
    titles, says = drawn(Images(classes=('cat', 'dog', 'yak')), results)
    assert titles == [('cat\nyak', 'darkgreen'), ('nothing\nnot dog', 'red'), ('cat\nnot cat, dog', 'red')]
    assert says == '1 of 3 test images right (33.3%); 3 of them:'
    unlabelled = [dict(pred_label=torch.tensor([0]))]
    assert drawn(Images(classes=('cat',)), unlabelled) == ([('cat', 'black')], '1 of 1 test images:')
