"""What becomes of the other inputs when one cannot be predicted."""

from argparse import Namespace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console

from scopevit.apis.model import computes
from scopevit.apis.prediction import predict_all
from scopevit.apis.prediction_files import Input


def predict(device, monkeypatch):
    monkeypatch.setattr('scopevit.apis.prediction.predict_image', len)  # which does not take what it is given
    inputs = [Input(f'{i}.jpg', f'{i}.jpg') for i in range(2)]
    return predict_all(SimpleNamespace(device=device), inputs, Namespace(out_dir='', max_pixels=1), Console(quiet=True))


def test_an_input_that_fails_leaves_the_others(monkeypatch):
    assert predict('cpu', monkeypatch) == 2


def test_nothing_goes_on_with_a_device_that_no_longer_computes(monkeypatch):
    with pytest.raises(TypeError, match='len'):
        predict('meta', monkeypatch)  # which has no numbers, as a GPU after an error of CUDA's own


def test_a_device_that_is_full_computes(monkeypatch):
    monkeypatch.setattr(torch, 'zeros', Mock(side_effect=torch.OutOfMemoryError))
    assert computes('cpu')
