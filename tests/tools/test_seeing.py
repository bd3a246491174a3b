"""The scopes and the evidence, drawn as a user does, in every task."""

import json

import cv2
import pytest

from helpers import fails_cleanly, tool_here, write_image

TASKS = ('classification', 'detection', 'segmentation', 'pose')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    return [write_image(folder / f'{i}.jpg', i, size) for i, size in enumerate([(150, 200), (120, 100)])]


def drawn(path):
    figure = cv2.imread(str(path))
    return min(figure.shape[:2]) > 200 and figure.std() > 10


@pytest.mark.parametrize('task', TASKS)
def test_scopes(models, images, task, tmp_path):
    config, checkpoint = models[task]
    out, record = tmp_path / 's.png', tmp_path / 's.json'
    words = ['--checkpoint', checkpoint, '--pixel', 90, 70, '--stages', 1, 4, '--out', out, '--json', record]
    result = tool_here('visualization/scopes.py', config, *images, *words)
    assert result.returncode == 0, result.stderr
    assert drawn(out)
    assert 'stage 3  3x3' in result.stdout
    heads = json.loads(record.read_text())['heads']
    assert [head['scope'] for head in heads if head['stage'] == 2] == ['7x7', '5x5', 'GSDA', 'GSDA']
    assert all(0 < head['distance'] < 250 for head in heads if head['stage'] < 4)


def test_scopes_without_a_checkpoint(models, images, tmp_path):
    result = tool_here('visualization/scopes.py', models['pose'][0], images[0], '--out', tmp_path / 's.png')
    assert result.returncode == 0, result.stderr
    assert drawn(tmp_path / 's.png')


@pytest.mark.parametrize('task', TASKS)
def test_cam(models, images, task, tmp_path):
    out = tmp_path / 'cam.png'
    result = tool_here('visualization/cam.py', *models[task], *images, '--out', out)
    assert result.returncode == 0, result.stderr
    assert drawn(out)
    assert result.stdout.count('.jpg: ') == 2


@pytest.mark.parametrize(
    ('name', 'task', 'words', 'says'),
    [
        ('scopes', 'detection', ['--pixel', 200, 3], 'pixel 200 3 lies outside the image'),
        ('scopes', 'detection', ['--stages', 5], '--stages takes numbers from 1 to 4'),
        ('scopes', 'detection', ['--box', 1, 1, 5, 5], 'a box is for pose models'),
        ('scopes', 'detection', ['--out', 'x.txt'], 'must end in .png or .jpg'),
        ('cam', 'classification', ['--class', 'doug'], 'the model has no class doug; did you mean dog'),
        ('cam', 'classification', ['--joint', 'nose'], '--joint is for pose models'),
        ('cam', 'segmentation', ['--pixel', -1, 3], 'lies outside the image'),
    ],
)
def test_wrong_arguments_are_one_error(models, images, name, task, words, says, tmp_path):
    given = [*models[task], images[0]] if name == 'cam' else [models[task][0], images[0]]
    fails_cleanly(tool_here(f'visualization/{name}.py', *given, '--out', tmp_path / 'f.png', *words), says)
    assert not list(tmp_path.iterdir())


def test_another_backbone_and_a_broken_image_are_one_error(models, images, tmp_path):
    (tmp_path / 'broken.jpg').write_text('no image')
    result = tool_here(
        'visualization/scopes.py', models['pose'][0], tmp_path / 'broken.jpg', '--out', tmp_path / 'f.png'
    )
    fails_cleanly(result, 'broken.jpg is not an image')
    config = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    result = tool_here('visualization/scopes.py', config, images[0], '--out', tmp_path / 'f.png')
    fails_cleanly(result, 'the backbone is a ResNet')
