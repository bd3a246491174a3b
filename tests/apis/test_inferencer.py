"""What a toolbox's model predicts for an image."""

from types import SimpleNamespace

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from scopevit.apis.inferencer import Predictor


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
