"""The pointing game on scenes."""

import cv2
import numpy as np
import pytest

from helpers import ROOT, load_tool, write_small_models
from projects.scenes.generator.layouts import generator
from scopevit.apis.inferencer import build_predictor
from scopevit.utils.config import load_config

pointing = load_tool(ROOT / 'projects' / 'scenes' / 'pointing.py')


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    config, checkpoint = write_small_models(tmp_path_factory.mktemp('models'))['segmentation']
    return build_predictor(load_config(str(config)), str(checkpoint), 'cpu')


def test_questions_are_about_what_is_there():
    for image, _, mask in [*pointing.objects(3), *pointing.scenes(3)]:
        assert mask.shape == image.shape[:2]
        assert 0 < mask.mean() < 0.9
    names = [name for _, name, _ in pointing.scenes(3)]
    assert 3 <= len(names) <= 21
    assert 'person' in names
    image, label, _ = next(iter(pointing.objects(1)))
    assert label == '981'
    again = pointing.make_object(generator(0, 'imagenet', 'val', 0), 'person').image
    assert np.array_equal(image, again)


def test_evidence_is_on_the_object_or_not(segmenter, monkeypatch):
    """Evidence that is highest in the middle of the object, or in that of the rest."""
    questions = list(pointing.scenes(2))[:3]
    masks = iter([mask for *_, mask in questions])

    def evidence(predictor, seen, choice, find):
        mask = next(masks)
        height, width = seen.size

        def inside(part):
            depth = cv2.distanceTransform(np.pad(part.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            return cv2.resize(depth, (width, height))[::4, ::4]

        return None, {'on': [inside(mask)], 'off': [inside(~mask)], 'one cell': [np.ones((1, 1))]}

    monkeypatch.setattr(pointing, 'evidence', evidence)
    assert pointing.play(segmenter, questions) == {('on', 1): 1.0, ('off', 1): 0.0}


def test_models_answer(segmenter):
    image, _, mask = next(iter(pointing.scenes(1)))
    shares = pointing.play(segmenter, [(image, 'tree', mask)])
    assert set(shares) == {(method, stage) for method in ('grad-cam', 'layer-cam') for stage in (1, 2, 3, 4)}
    assert set(shares.values()) <= {0.0, 1.0}
