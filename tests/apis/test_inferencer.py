"""What a toolbox's model predicts for an image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from scopevit.apis import inferencer
from scopevit.apis.inferencer import Predictor, Segmenter
from scopevit.utils.errors import UserError


def test_logits_of_each_pixel_stay_where_they_are(monkeypatch):
    sample = SegDataSample(seg_logits=PixelData(data=torch.rand(150, 4, 5)))
    sample.pred_sem_seg = PixelData(data=torch.zeros(1, 4, 5, dtype=torch.long))
    copied = []
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: copied.append(tuple(self.shape)) or self)
    predictor = object.__new__(Predictor)
    predictor.model = SimpleNamespace(test_step=lambda batch: [sample])
    predictor.prepare = lambda image, info: dict(inputs=torch.zeros(3, 4, 5), data_samples=SegDataSample())
    (result,) = predictor.run(np.zeros((4, 5, 3), np.uint8), {})
    assert copied == [(1, 4, 5)]
    assert 'seg_logits' not in result


def test_an_image_whose_scores_do_not_fit_into_memory_is_refused_before_they_are_computed(monkeypatch):
    computed = []
    predictor = object.__new__(Segmenter)
    predictor.device = 'cpu'
    predictor.model = SimpleNamespace(out_channels=150, test_step=lambda batch: computed.append(batch) or [])
    predictor.prepare = lambda image, info: dict(inputs=torch.zeros(3, 4, 5))
    monkeypatch.setattr(inferencer, 'available_memory', lambda device: 10**9)
    predictor.run(np.zeros((1000, 1600, 3), np.uint8), {})
    assert len(computed) == 1
    with pytest.raises(UserError, match='150 classes for 2000x1000 pixels take 1.2 GB, .* less than 1,666,666 pixels'):
        predictor.run(np.zeros((1000, 2000, 3), np.uint8), {})
    assert len(computed) == 1
