"""What the page of tools/demo.py shows, without a browser."""

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import write_image
from scopevit.analysis import demo as module
from scopevit.analysis.demo import Demo, attended, predicted
from scopevit.apis.inferencer import build_predictor
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

COLUMNS = {
    'classification': ['class', 'score'],
    'detection': ['class', 'score', 'x', 'y', 'width', 'height'],
    'segmentation': ['class', 'share of the pixels'],
    'pose': ['person', 'joint', 'score', 'x', 'y'],
}


@pytest.fixture(scope='module')
def demos(models):
    found = {}
    for task, (config, checkpoint) in models.items():
        found[task] = Demo(build_predictor(load_config(str(config)), str(checkpoint), 'cpu', 0.0))
    return found


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return str(write_image(tmp_path_factory.mktemp('images') / 'a.png', 0, (150, 200)))


@pytest.mark.parametrize('task', COLUMNS)
def test_an_image_of_any_task_gives_a_figure_and_a_table(demos, task, image):
    figure, columns, rows, text, shape = predicted(demos[task], image, 0.0)
    assert columns == COLUMNS[task]
    assert rows
    assert all(len(row) == len(columns) for row in rows)
    assert 's on cpu, drawing included' in text
    assert figure.shape == shape == (384, 512, 3)  # enlarged, for names to be read
    plain = cv2.resize(cv2.imread(image)[..., ::-1], (512, 384), interpolation=cv2.INTER_CUBIC)
    assert task == 'pose' or np.abs(figure.astype(int) - plain).max() > 50  # something is drawn


def test_the_scopes_are_drawn(demos, image):
    scopes, hint = attended(demos['pose'], image, (384, 512, 3))
    assert min(scopes.shape[:2]) > 600
    assert scopes.std() > 20
    assert 'Click the prediction' in hint


def test_a_click_chooses_the_pixel(demos, image, monkeypatch):
    chosen = []
    monkeypatch.setattr(module, 'draw_scopes', lambda view, layers, heads, pixel: chosen.append(pixel))
    monkeypatch.setattr(module, '_pixels', lambda figure: np.zeros((1, 1, 3)))
    for pixel in (None, (0, 0), (511, 383), (256, 10)):
        attended(demos['detection'], image, (384, 512, 3), pixel)
    assert chosen == [(100, 75), (0, 0), (199, 149), (100, 3)]
    # The classifier's crop leaves the margin out.
    figure, hint = attended(demos['classification'], image, (384, 512, 3), (3, 200))
    assert figure is None
    assert 'the model does not see pixel 1 78' in hint


@pytest.mark.parametrize('kind', ['turned', 'with_alpha', 'grey'])
def test_images_of_any_kind_are_read_as_they_look(demos, kind, tmp_path):
    original = Image.fromarray(cv2.imread(str(write_image(tmp_path / 'a.png', 0, (90, 120))))[..., ::-1])
    if kind == 'turned':
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees to the right
        original.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'b.png', exif=exif)
    elif kind == 'with_alpha':
        original.convert('RGBA').save(tmp_path / 'b.png')
    else:
        original = original.convert('L')
        original.save(tmp_path / 'b.png')
        original = original.convert('RGB')
    original.save(tmp_path / 'a.png')
    first, second = (demos['segmentation'].predict(str(tmp_path / f'{name}.png')) for name in 'ab')
    assert first.rows == second.rows
    assert np.array_equal(first.figure, second.figure)


def test_a_large_image_is_shrunk_which_is_said(demos, image, monkeypatch):
    monkeypatch.setattr(module, 'LONGEST', 100)
    answer = demos['detection'].predict(image)
    assert 'shrunk from 200 x 150 to 100 x 75 pixels' in answer.summary
    assert max(row[2] + row[4] for row in answer.rows) <= 100


@pytest.mark.parametrize('task', COLUMNS)
def test_an_image_of_one_pixel_is_no_problem(demos, task, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'draw_scopes', lambda view, layers, heads, pixel: pixel)
    monkeypatch.setattr(module, '_pixels', lambda figure: figure)
    _, _, _, text, shape = predicted(demos[task], str(write_image(tmp_path / 'dot.png', 0, (1, 1))), 0.0)
    assert 'on cpu' in text
    assert attended(demos[task], str(tmp_path / 'dot.png'), shape)[0] == (0, 0)


@pytest.mark.parametrize(('content', 'says'), [(b'no image', 'is not an image'), (b'', 'is empty')])
def test_what_is_no_image_is_told(demos, content, says, tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    figure, columns, rows, text, shape = predicted(demos['detection'], str(path), 0.3)
    assert f'**This file {says}' in text
    assert (figure, columns, rows, shape) == (None, [], [], None)
    assert attended(demos['detection'], str(path), shape) == (None, '')
    assert predicted(demos['detection'], None, 0.3)[0] is None


def test_an_image_of_which_the_pipeline_would_leave_nothing_is_told(demos, tmp_path):
    text = predicted(demos['segmentation'], str(write_image(tmp_path / 'line.png', 0, (2, 2000))), 0.3)[3]
    assert text.startswith('**An image of 2000 x 2 pixels cannot be predicted: ')


def test_the_score_decides_what_is_shown(demos, image):
    assert predicted(demos['detection'], image, 0.0)[2]
    assert predicted(demos['detection'], image, 1.0)[3].startswith('no objects of this score')


def test_people_are_where_the_boxes_are(models, image):
    boxes = np.array([[0, 0, 50, 60], [20, 30, 120, 120]], np.float32)
    config, checkpoint = models['pose']
    predictor = build_predictor(load_config(str(config)), str(checkpoint), 'cpu')
    demo = Demo(predictor, lambda image, path: (boxes, np.array([0.5, 0.9])))
    answer = demo.predict(image)
    assert answer.summary.startswith('2 people')
    assert [row[0] for row in answer.rows] == [1] * 17 + [2] * 17
    person = [demo._person_at(predictor.read(image), image, *at) for at in ((30, 40), (5, 5), (190, 5))]
    assert person == [(20, 30, 100, 90), (0, 0, 50, 60), None]
    with pytest.raises(UserError, match='this model needs none'):
        Demo(build_predictor(load_config(str(models['detection'][0])), None, 'cpu'), demo.predictor.find_boxes)


def test_another_backbone_has_predictions_without_scopes(image):
    cfg = load_config('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py')
    demo = Demo(build_predictor(cfg, None, 'cpu'))
    assert 'the backbone is a MobileNetV2' in demo.why_no_scopes
    assert len(demo.predict(image).rows) == 5
