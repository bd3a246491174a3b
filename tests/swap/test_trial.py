"""Trying whether a model runs."""

import pytest
import torch

from helpers import ROOT, small_config
from scopevit.swap.trial import SettingError, try_model
from scopevit.utils.config import load_config


def test_a_model_is_tried_without_a_trace():
    cfg = small_config()
    state = torch.get_rng_state()
    model, size = try_model(cfg)
    assert size == 96
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_heatmaps_of_another_size_than_the_codec_says():
    cfg = load_config(str(ROOT / 'configs' / 'pose' / 'td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py'))
    assert try_model(cfg)
    cfg.codec.heatmap_size = (40, 56)
    with pytest.raises(SettingError, match=r'is \(40, 56\), but the heatmaps are \(48, 64\)') as caught:
        try_model(cfg)
    assert caught.value.key == 'codec.heatmap_size'
