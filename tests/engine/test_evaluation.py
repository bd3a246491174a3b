"""What a test run writes: every prediction, in a form that fits into memory."""

import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from scopevit.engine import DumpPredictions


def dump(tmp_path, *samples):
    metric = DumpPredictions(str(tmp_path / 'predictions.pkl'))
    metric.process(None, samples)
    metric.compute_metrics(metric.results)
    return pickle.loads((tmp_path / 'predictions.pkl').read_bytes())


def test_masks_become_run_lengths(tmp_path):
    masks = torch.zeros(2, 400, 500, dtype=torch.bool)
    masks[0, 20:300, 30:40] = True
    sample = dict(
        img_path='a.jpg', gt_instances=dict(masks=masks), pred_instances=dict(masks=masks, scores=torch.ones(2))
    )
    (found,) = dump(tmp_path, sample)
    assert (coco_mask.decode(found['pred_instances']['masks'][0]) == masks[0].numpy()).all()
    assert len(found['pred_instances']['scores']) == 2
    assert 'gt_instances' not in found
    assert (tmp_path / 'predictions.pkl').stat().st_size < 5_000
    assert sample['pred_instances']['masks'] is masks  # other metrics get what the model said


def test_predictions_appear_when_they_are_complete(tmp_path):
    dump(tmp_path, dict(img_path='a.jpg'))
    with pytest.raises(AttributeError):
        dump(tmp_path, dict(img_path=lambda: 'cannot be pickled'))
    assert pickle.loads((tmp_path / 'predictions.pkl').read_bytes()) == [dict(img_path='a.jpg')]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_masks_and_no_instances(tmp_path):
    empty = dict(masks=torch.zeros(0, 40, 50, dtype=torch.bool), bboxes=torch.zeros(0, 4))
    (found,) = dump(tmp_path, dict(pred_instances=empty))
    assert len(found['pred_instances']['masks']) == 0


def test_label_maps_shrink_and_scores_of_all_classes_are_left_out(tmp_path):
    labels = torch.randint(0, 150, (1, 60, 80))
    sample = dict(
        seg_logits=dict(data=torch.rand(150, 60, 80)), pred_sem_seg=dict(data=labels), gt_sem_seg=dict(data=labels)
    )
    (found,) = dump(tmp_path, sample)
    assert set(found) == {'pred_sem_seg'}
    assert found['pred_sem_seg']['data'].dtype == np.uint8
    assert (found['pred_sem_seg']['data'] == labels.numpy()).all()
    assert (tmp_path / 'predictions.pkl').stat().st_size < 6_000


def test_panoptic_numbers_are_kept_whole(tmp_path):
    numbers = torch.tensor([[[7 + 1000 * 80, 3]]])
    (found,) = dump(tmp_path, dict(pred_panoptic_seg=dict(sem_seg=numbers)))
    assert found['pred_panoptic_seg']['sem_seg'].tolist() == numbers.tolist()
