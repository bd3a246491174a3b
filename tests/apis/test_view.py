"""Where a network's input lies in the image."""

import numpy as np
import pytest

from scopevit.apis.inferencer import build_predictor
from scopevit.apis.view import view, view_of
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def predictors(models):
    return {task: build_predictor(load_config(str(config)), None, 'cpu') for task, (config, _) in models.items()}


# Scale and offset of rows and columns: of the resized image's pixels, whose middles are half a pixel in, and a crop's.
@pytest.mark.parametrize(
    ('task', 'size', 'rows', 'columns'),
    [
        ('classification', (32, 32), (150 / 36, 2.5 * 150 / 36 - 0.5), (200 / 48, 8.5 * 200 / 48 - 0.5)),
        ('detection', (64, 85), (150 / 64, 75 / 64 - 0.5), (200 / 85, 100 / 85 - 0.5)),
        ('segmentation', (64, 85), (150 / 64, 75 / 64 - 0.5), (200 / 85, 100 / 85 - 0.5)),
    ],
)
def test_a_view_says_where_it_lies(predictors, task, size, rows, columns):
    seen = view(predictors[task], IMAGE)
    assert seen.size == size
    assert np.allclose(seen.scale, (rows[0], columns[0]), rtol=0.01)
    assert np.allclose(seen.offset, (rows[1], columns[1]), atol=0.5)
    assert np.allclose(seen.in_image(seen.in_input(120, 40)), (40, 120))


def test_a_person_is_seen_with_a_margin(predictors):
    seen = view(predictors['pose'], IMAGE, (80, 20, 60, 80))
    assert seen.size == (256, 192)
    # mmpose takes 1.25 times the box, here of the proportions already.
    assert np.allclose(seen.in_image(np.array([127.5, 95.5])), (59.5, 109.5), atol=1)
    assert np.allclose(seen.scale, 1.25 * 80 / 256, rtol=0.01)
    whole = view(predictors['pose'], IMAGE)
    assert whole.scale[0] > 2 * seen.scale[0]


def test_what_is_not_seen_is_an_error(predictors, tmp_path):
    seen = view(predictors['classification'], IMAGE)
    with pytest.raises(UserError, match='pixel 200 3 lies outside the image, which is 200 wide and 150 high'):
        seen.in_input(200, 3)
    with pytest.raises(UserError, match='does not see pixel 2 75: of this image it sees x from 3. to 16'):
        seen.in_input(2, 75)
    with pytest.raises(UserError, match='a box is for pose models'):
        view(predictors['classification'], IMAGE, (0, 0, 5, 5))
    with pytest.raises(UserError, match='holds nothing of the image'):
        view(predictors['pose'], IMAGE, (300, 0, 5, 5))
    with pytest.raises(UserError, match='no.png cannot be read'):
        view_of(predictors['pose'], str(tmp_path / 'no.png'))


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (300, 2)])
def test_images_of_odd_sizes(predictors, size):
    for predictor in predictors.values():
        seen = view(predictor, np.zeros((*size, 3), np.uint8))
        assert np.isfinite([seen.scale, seen.offset]).all()
        assert (seen.scale > 0).all()
