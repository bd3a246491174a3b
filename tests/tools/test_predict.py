"""Prediction in every task: odd images, broken ones, videos, where people are, and what is written."""

import json
import os
import resource
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from helpers import CLASS_NAMES, ROOT, SMALL_CONFIGS, fails_cleanly, tool, tool_here, write_image
from scopevit.utils.checkpoint import to_plain
from scopevit.utils.image import read_image

TASKS = ('classification', 'detection', 'segmentation', 'pose')


def predict(models, task, *words, cwd=None):
    words = (
        [*words, '--boxes', 'whole'] if task == 'pose' and not {'--boxes', '--detector-config'} & set(words) else words
    )
    return tool_here('predict.py', *models[task], *words, cwd=cwd)


def results(out):
    """Every JSON file by its path below the output folder."""
    return {str(path.relative_to(out)): json.loads(path.read_text()) for path in sorted(out.rglob('*.json'))}


def write_video(path, frames=3, size=(64, 96)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, size[::-1])
    for i in range(frames):
        writer.write(np.full((*size, 3), 40 * i, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """Images of all kinds, a video, a text file, and three files that are no images."""
    root = tmp_path_factory.mktemp('photographs')

    def noise(*shape):
        return np.random.default_rng(sum(shape)).integers(0, 255, shape, dtype=np.uint8)

    write_image(root / 'a' / 'x.jpg', 1, (60, 80))
    write_image(root / 'b' / 'x.JPG', 2, (80, 60))
    write_image(root / 'one.png', 3, (1, 1))
    write_image(root / 'small.png', 4, (7, 9))
    write_image(root / 'wide.png', 5, (12, 900))
    cv2.imwrite(str(root / 'grey.png'), noise(40, 50))
    cv2.imwrite(str(root / 'rgba.png'), noise(40, 50, 4))
    cv2.imwrite(str(root / '16 bits.png'), noise(40, 50).astype(np.uint16) * 257)
    Image.fromarray(np.full((40, 50, 3), (220, 30, 30), np.uint8)).convert('CMYK').save(root / 'cmyk.jpg')
    Image.fromarray(noise(40, 50, 4), 'CMYK').save(root / 'cmyk.tif')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(noise(40, 50, 3)).save(root / 'turned.jpg', exif=exif)
    write_video(root / 'clip.avi')
    (root / 'notes.txt').write_text('not an image')
    (root / 'broken.jpg').write_text('not an image either')
    (root / 'empty.png').touch()
    whole = (root / 'a' / 'x.jpg').read_bytes()
    (root / 'truncated.jpg').write_bytes(whole[: len(whole) // 2])
    return root


@pytest.mark.parametrize('task', TASKS)
def test_a_folder_with_all_kinds_of_images(task, models, photographs, tmp_path):
    out = tmp_path / 'out'
    result = predict(models, task, photographs, '--out-dir', out, '--score-thr', 0)
    fails_cleanly(result, '3 of 15 inputs could not be read')
    assert 'wrote the results of 12 of 15 inputs' in result.stdout
    for name in ('broken.jpg', 'empty.png', 'truncated.jpg'):
        assert f'skipped: {photographs}/{name}' in result.stderr
    assert f'note: {photographs}/notes.txt is passed over' in result.stderr
    assert 'WARN' not in result.stderr.upper()

    found = results(out)
    images = {str(p.relative_to(out)) for p in out.rglob('*') if p.is_file() and p.suffix != '.json'}
    images = {name for name in images if 'classes' not in name}
    assert {f'{name}.json' for name in images} == found.keys()
    names = {'a/x.jpg', 'b/x.JPG', 'one.png', 'small.png', 'wide.png', 'grey.png', 'rgba.png', '16 bits.png'}
    assert images == names | {'cmyk.jpg', 'cmyk.tif.png', 'turned.jpg', 'clip.avi.mp4'}
    assert (found['turned.jpg.json']['width'], found['turned.jpg.json']['height']) == (40, 50)
    assert (found['wide.png.json']['width'], found['one.png.json']['height']) == (900, 1)

    video = cv2.VideoCapture(str(out / 'clip.avi.mp4'))
    assert sum(1 for _ in iter(lambda: video.read()[0], False)) == 3
    frames = found['clip.avi.mp4.json']['frames']
    assert [frame['frame'] for frame in frames] == [0, 1, 2]
    assert frames[0]['width'] == 96

    for name, data in found.items():
        for record in data.get('frames', [data]):
            CHECKS[task](record, out / name)


def check_classification(record, path):
    assert len(record['top']) == 3
    assert record['predicted'] == record['top'][:1]
    assert sum(entry['score'] for entry in record['top']) == pytest.approx(1, abs=1e-4)
    assert all(entry['class'] == CLASS_NAMES['classification'][entry['label']] for entry in record['top'])


def check_detection(record, path):
    from pycocotools import mask

    for instance in record['instances']:
        assert instance['class'] == CLASS_NAMES['detection'][instance['label']]
        x, y, width, height = instance['bbox']
        assert x + width <= record['width'] + 0.1
        assert min(x, y, width, height) >= 0
        assert mask.decode(instance['mask']).shape == (record['height'], record['width'])


def check_segmentation(record, path):
    labels = cv2.imread(str(path.parent / record['class_map']), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (record['height'], record['width'])
    for entry in record['classes']:
        assert entry['class'] == CLASS_NAMES['segmentation'][entry['label']]
        assert entry['share'] == pytest.approx((labels == entry['label']).mean(), abs=1e-5)
    assert sum(entry['share'] for entry in record['classes']) == pytest.approx(1, abs=1e-5)


def check_pose(record, path):
    (person,) = record['instances']
    assert person['bbox'] == [0, 0, record['width'], record['height']]
    assert [joint['name'] for joint in person['keypoints']][:2] == ['nose', 'left_eye']
    assert len(person['keypoints']) == 17


CHECKS = {task: globals()[f'check_{task}'] for task in TASKS}


def test_images_show_the_prediction(models, tmp_path):
    write_image(tmp_path / 'x.png', size=(300, 400))
    for task in TASKS:
        result = predict(models, task, tmp_path / 'x.png', '--out-dir', tmp_path / task, '--score-thr', 0)
        assert result.returncode == 0, result.stderr
        drawn = cv2.imread(str(tmp_path / task / 'x.png')).astype(int)
        changed = np.abs(drawn - cv2.imread(str(tmp_path / 'x.png'))).max(-1) > 20
        assert drawn.shape == (300, 400, 3)
        assert changed.mean() > 0.001
        if task != 'segmentation':  # the rest is the image, in its own colours
            assert changed.mean() < 0.6


def test_without_a_box_the_figure_and_the_json_say_the_best_score(models, tmp_path):
    image = write_image(tmp_path / 'x.png', size=(300, 400))
    result = predict(models, 'detection', image, '--out-dir', tmp_path / 'out', '--score-thr', 1)
    assert result.returncode == 0, result.stderr
    found = results(tmp_path / 'out')['x.png.json']
    assert (found['instances'], found['score_thr']) == ([], 1)
    assert 0 < found['best_score'] < 1
    drawn = cv2.imread(str(tmp_path / 'out' / 'x.png')).astype(int)
    changed = np.abs(drawn - cv2.imread(str(image))).max(-1).mean(-1)
    assert changed[:10].min() > 20 > changed[60:].max()
    result = predict(models, 'detection', image, '--out-dir', tmp_path / 'out', '--score-thr', 30)
    assert '--score-thr: must be from 0 to 1' in result.stderr


def test_the_numbers_are_those_of_the_toolbox(models, tmp_path):
    """The same image through mmdet's own functions for a file."""
    from mmdet.apis import inference_detector, init_detector

    config, checkpoint = models['detection']
    image = write_image(tmp_path / 'x.png', size=(60, 90))
    assert predict(models, 'detection', image, '--out-dir', tmp_path / 'out', '--score-thr', 0).returncode == 0
    expected = inference_detector(init_detector(str(config), str(checkpoint), device='cpu'), str(image))
    boxes = expected.pred_instances.bboxes.numpy()
    found = results(tmp_path / 'out')['x.png.json']['instances']
    assert len(found) == len(boxes) > 0
    np.testing.assert_allclose([i['bbox'][:2] for i in found], boxes[:, :2], atol=0.02)
    np.testing.assert_allclose([i['score'] for i in found], expected.pred_instances.scores, atol=1e-4)


def test_compiled_predictions_are_the_same(models, tmp_path, monkeypatch):
    image, compiled = write_image(tmp_path / 'x.png', size=(60, 90)), []
    compiles = torch.nn.Module.compile

    def compile_without_code(module, **options):
        compiled.append(type(module).__name__)
        compiles(module, backend='eager', **options)

    monkeypatch.setattr(torch.nn.Module, 'compile', compile_without_code)
    for folder, options in (('plain', ()), ('compiled', ('--compile',))):
        result = predict(models, 'classification', image, '--out-dir', tmp_path / folder, *options)
        assert result.returncode == 0, result.stderr
    assert compiled == ['ScopeViT']
    assert 'Compiling the backbone' in result.stderr
    assert results(tmp_path / 'compiled') == results(tmp_path / 'plain')


@pytest.mark.slow
def test_the_command_itself_is_quiet_and_takes_configs_of_a_toolbox(tmp_path):
    image = write_image(tmp_path / 'x.jpg')
    name = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    init_default_scope('mmpretrain')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'x.pth')
    result = tool('predict.py', name, tmp_path / 'x.pth', image, '--out-dir', tmp_path / 'out')
    assert results(tmp_path / 'out')['x.jpg.json']['predicted'][0]['class'] in ('airplane', 'automobile', 'bird', 'cat',
        'deer', 'dog', 'frog', 'horse', 'ship', 'truck')  # fmt: skip
    assert result.stdout == f'wrote the results of 1 of 1 inputs to {tmp_path / "out"}\n'
    assert [line for line in result.stderr.splitlines() if not line.startswith('predicting')] == []


def test_grey_model_reads_grey_and_names_come_from_the_data_set(fashion_mnist, tmp_path):
    """The quick start's model: one channel, and a data set that is not read from image files."""
    config = ROOT / 'tests' / 'data' / 'toy_classifier.py'
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'x.pth')
    write_image(tmp_path / 'x.png', size=(28, 28))
    result = tool_here('predict.py', config, tmp_path / 'x.pth', tmp_path / 'x.png', '--out-dir', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    assert results(tmp_path / 'out')['x.png.json']['predicted'][0]['class'][0].isupper()  # Sandal, Bag, ...


@pytest.mark.parametrize('task', ['detection', 'pose'])
def test_names_survive_publishing(task, models, tmp_path):
    config, checkpoint = models[task]
    content = torch.load(checkpoint, weights_only=True)
    if task == 'pose':
        from mmpose.apis.inference import dataset_meta_from_config

        content['meta'] = dict(dataset_meta=dataset_meta_from_config(Config.fromfile(config), 'train'))
        content['meta']['dataset_meta']['keypoint_id2name'] = {i: f'joint {i}' for i in range(17)}
    torch.save(content, tmp_path / 'trained.pth')
    result = tool_here('converters/publish_model.py', tmp_path / 'trained.pth', tmp_path / 'slim.pth')
    assert result.returncode == 0, result.stderr
    (slim,) = tmp_path.glob('slim-*.pth')
    write_image(tmp_path / 'x.png')
    words = ['--score-thr', 0, *(['--boxes', 'whole'] if task == 'pose' else [])]
    result = tool_here('predict.py', config, slim, tmp_path / 'x.png', '--out-dir', tmp_path / 'out', *words)
    assert result.returncode == 0, result.stderr
    instance = results(tmp_path / 'out')['x.png.json']['instances'][0]
    if task == 'pose':
        assert instance['keypoints'][16]['name'] == 'joint 16'
    else:
        assert instance['class'] in CLASS_NAMES['detection']
    assert to_plain(instance) == instance


def test_without_names_labels_are_numbers(models, tmp_path):
    write_image(tmp_path / 'x.png')
    for task in ('classification', 'detection', 'segmentation'):  # the config's own names are of other classes
        config, checkpoint = models[task]
        state = torch.load(checkpoint, weights_only=True)['state_dict']
        torch.save(dict(state_dict=state), tmp_path / 'x.pth')
        words = (tmp_path / 'x.png', '--out-dir', tmp_path / task, '--score-thr', 0)
        result = tool_here('predict.py', config, tmp_path / 'x.pth', *words)
        assert result.returncode == 0, result.stderr
        data = results(tmp_path / task)['x.png.json']
        for entry in data.get('top') or data.get('instances') or data['classes']:
            assert entry['class'] == str(entry['label'])


def test_inputs_by_name_and_pattern(models, photographs, tmp_path):
    out = tmp_path / 'out'
    words = ('a/x.jpg', 'b', 'b/x.JPG', 'o*.png', photographs / 'notes.txt')
    result = predict(models, 'classification', *words, '--out-dir', out, cwd=photographs)
    fails_cleanly(result, '1 of 4 inputs')  # a pattern takes what it finds, a named text file is a mistake
    assert 'notes.txt is not an image' in result.stderr
    assert results(out).keys() == {'x.jpg.json', 'x.JPG.json', 'one.png.json'}


@pytest.mark.parametrize('names', [('x.tif', 'x.tif.png'), ('x.jpg', 'x.jpg.classes.png'), ('a/x.jpg', 'b/x.jpg')])
def test_names_of_results_never_meet(names, models, tmp_path):
    images = [write_image(tmp_path / 'in' / name) for name in names]
    result = predict(models, 'segmentation', *images, '--out-dir', tmp_path / 'out')
    fails_cleanly(result, *map(str, images), 'would both write', 'name a folder that holds both')
    assert not (tmp_path / 'out').exists()
    if 'a/x.jpg' in names:
        result = predict(models, 'segmentation', tmp_path / 'in', '--out-dir', tmp_path / 'out')
        assert result.returncode == 0, result.stderr
        assert results(tmp_path / 'out').keys() == {'a/x.jpg.json', 'b/x.jpg.json'}


def test_older_results_and_inputs_are_safe(models, tmp_path):
    image = write_image(tmp_path / 'in' / 'x.png')
    before = image.read_bytes()
    out = tmp_path / 'in' / 'out'
    assert predict(models, 'classification', tmp_path / 'in', '--out-dir', out).returncode == 0
    fails_cleanly(
        predict(models, 'classification', tmp_path / 'in', '--out-dir', out), 'has files in it', '--overwrite'
    )
    # Results below the inputs' folder are not predicted for again.
    result = predict(models, 'classification', tmp_path / 'in', '--out-dir', out, '--overwrite')
    assert 'results of 1 of 1 inputs' in result.stdout
    result = predict(models, 'classification', tmp_path / 'in', '--out-dir', tmp_path / 'in', '--overwrite')
    fails_cleanly(result, 'would replace the input')
    assert image.read_bytes() == before


def test_inputs_that_are_not_there(models, tmp_path):
    out = ('--out-dir', tmp_path / 'out')
    fails_cleanly(predict(models, 'detection', tmp_path / 'no.jpg', *out), 'no.jpg does not exist')
    fails_cleanly(predict(models, 'detection', tmp_path / '*.jpg', *out), 'no file matches')
    (tmp_path / 'empty').mkdir()
    fails_cleanly(predict(models, 'detection', tmp_path / 'empty', *out), 'there are no images or videos')
    assert not (tmp_path / 'out').exists()


def test_wrong_checkpoints_configs_and_devices(models, tmp_path):
    image = write_image(tmp_path / 'x.png')
    out = ('--out-dir', tmp_path / 'out')
    config, _ = models['detection']
    fails_cleanly(tool_here('predict.py', config, models['pose'][1], image, *out), 'is of another model')
    fails_cleanly(tool_here('predict.py', config, tmp_path / 'no.pth', image, *out), 'no.pth does not exist')
    fails_cleanly(predict(models, 'detection', image, *out, '--device', 'cuda:77'), '--device cuda:77')
    (tmp_path / 'x.py').write_text("default_scope = 'mmagic'")
    fails_cleanly(tool_here('predict.py', tmp_path / 'x.py', models['pose'][1], image, *out), 'default_scope is mmagic')
    assert not (tmp_path / 'out').exists()


def test_damaged_video(models, tmp_path):
    (tmp_path / 'x.mp4').write_bytes(b'not a video')
    video = write_video(tmp_path / 'y.avi', frames=40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    result = predict(models, 'classification', tmp_path, '--out-dir', tmp_path / 'out')
    fails_cleanly(result, '2 of 2 inputs')
    assert 'x.mp4 is not a video that OpenCV can read' in result.stderr
    assert 'y.avi is damaged' in result.stderr
    frames = results(tmp_path / 'out')['y.avi.mp4.json']['frames']
    assert 0 < len(frames) < 40


class TestPose:
    @pytest.fixture(autouse=True)
    def _image(self, models, tmp_path):
        self.folder, self.image = tmp_path, write_image(tmp_path / '000000000139.jpg', size=(80, 100))
        self.models = models

    def run(self, *words):
        shutil.rmtree(self.folder / 'out', ignore_errors=True)
        return tool_here('predict.py', *self.models['pose'], self.image, '--out-dir', self.folder / 'out', *words)

    def people(self, *words):
        result = self.run(*words)
        assert result.returncode == 0, result.stderr
        return results(self.folder / 'out')['000000000139.jpg.json']['instances']

    def boxes(self, content):
        path = self.folder / 'boxes.json'
        path.write_text(json.dumps(content))
        return '--boxes', path

    def test_without_boxes_the_error_names_the_options_and_nothing_is_downloaded(self, monkeypatch):
        import urllib.request

        def refuse(*args, **kwargs):
            raise AssertionError('a download')

        monkeypatch.setattr(urllib.request, 'urlopen', refuse)
        fails_cleanly(self.run(), '--boxes whole', '--boxes FILE', '--detector-config')
        assert not (self.folder / 'out').exists()

    @pytest.mark.parametrize('image', [dict(image_id=139), dict(file_name='000000000139.jpg')], ids=['id', 'name'])
    def test_boxes_from_a_file(self, image):
        detections = [
            dict(image, category_id=1, bbox=[10, 20, 30, 40], score=0.9),
            dict(image, category_id=1, bbox=[50, 5, 40, 70], score=0.8),
            dict(image, category_id=2, bbox=[0, 0, 9, 9], score=0.8),
            dict(image_id=7, category_id=1, bbox=[0, 0, 9, 9], score=0.8),
        ]
        people = self.people(*self.boxes(detections))
        assert [person['bbox'] for person in people] == [[10, 20, 30, 40], [50, 5, 40, 70]]
        assert [person['score'] for person in people] == [0.9, 0.8]

    def test_folders_tell_images_of_one_name_apart(self):
        for part in 'ab':
            write_image(self.folder / 'clip' / part / '1.jpg')
        words = ('predict.py', *self.models['pose'], self.folder / 'clip', '--out-dir', self.folder / 'out')
        boxes = {'a/1.jpg': [10, 20, 30, 40], 'b/1.jpg': [50, 5, 40, 70]}
        entries = [dict(file_name=name, category_id=1, bbox=box, score=1) for name, box in boxes.items()]
        result = tool_here(*words, *self.boxes(entries))
        assert result.returncode == 0, result.stderr
        found = results(self.folder / 'out')
        assert {name: found[f'{name}.json']['instances'][0]['bbox'] for name in boxes} == boxes
        entries = [dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], score=1)]
        result = tool_here(*words, *self.boxes(entries), '--overwrite')
        fails_cleanly(result, 'image_id 1 is that of', 'a/1.jpg and', 'give the file_name')

    def test_an_image_without_people_has_none(self):
        write_image(self.folder / 'empty.jpg')
        file = self.boxes([dict(image_id=139, category_id=1, bbox=[10, 20, 30, 40], score=1)])[1]
        words = (self.folder / 'empty.jpg', '--boxes', file)
        assert self.run(*words).returncode == 2  # options end the list of inputs
        result = tool_here(
            'predict.py', *self.models['pose'], self.image, self.folder / 'empty.jpg',
            '--out-dir', self.folder / 'out', '--boxes', file,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert results(self.folder / 'out')['empty.jpg.json']['instances'] == []

    def test_bad_boxes(self):
        fails_cleanly(self.run('--boxes', self.folder / 'no.json'), 'no.json cannot be read')
        good = dict(image_id=139, category_id=1, bbox=[1, 2, 3, 4], score=1)
        for wrong in (
            dict(bbox=[1, 2, 3]),
            dict(bbox=[1, 2, 0, 4]),
            dict(score=None),
            dict(image_id='x'),
            dict(file_name=['a']),
        ):
            fails_cleanly(self.run(*self.boxes([{**good, **wrong}])), 'is not a detection as COCO has them')
        fails_cleanly(self.run(*self.boxes([dict(bbox=[1, 2, 3, 4])])), 'is not a detection as COCO has them')
        fails_cleanly(self.run(*self.boxes(dict(annotations=[good]))), "is not a list of detections in COCO's")
        fails_cleanly(self.run(*self.boxes([dict(good, image_id=7)])), 'no box for any input', '000000000139.jpg, 139')

    def test_a_detector_finds_the_people(self):
        config, checkpoint = self.models['detection']
        detector = ('--detector-config', config, '--detector-checkpoint', checkpoint, '--score-thr', 0)
        people = self.people(*detector)
        assert people
        words = ('--out-dir', self.folder / 'boxes', '--score-thr', 0)
        assert predict(self.models, 'detection', self.image, *words).returncode == 0
        found = results(self.folder / 'boxes')['000000000139.jpg.json']['instances']
        boxes = [i['bbox'] for i in found if i['class'] == 'person']
        for person in people:
            assert np.abs(np.array(boxes) - person['bbox']).max(1).min() < 0.02
        fails_cleanly(self.run(*detector, '--detector-category', 'cat'), 'no class cat', 'person, kite')
        fails_cleanly(self.run('--detector-config', config), 'needs both')
        fails_cleanly(self.run(*detector, '--boxes', 'whole'), 'either --boxes whole')

    def test_boxes_for_another_task(self):
        result = predict(self.models, 'detection', self.image, '--out-dir', self.folder / 'out', '--boxes', 'whole')
        fails_cleanly(result, 'this model needs no boxes')


def test_colours_of_unusual_images(photographs):
    red = read_image(str(photographs / 'cmyk.jpg'))[20, 20]
    assert red[2] > 200 > 80 > max(red[:2])
    deep = cv2.imread(str(photographs / '16 bits.png'), cv2.IMREAD_UNCHANGED)
    assert np.abs(read_image(str(photographs / '16 bits.png'))[..., 0].astype(int) - deep // 257).max() <= 1
    assert read_image(str(photographs / 'rgba.png'), 1).ndim == 2


def test_names_that_are_not_utf_8_and_those_as_long_as_can_be(models, tmp_path):
    folder, out = tmp_path / 'in', tmp_path / 'out\udcfe'
    write_image(folder / 'x.jpg')
    write_video(folder / 'x.avi')
    for suffix in ('.jpg', '.avi'):
        (folder / f'x{suffix}').rename(folder / f'odd\udcff{suffix}')
        shutil.copy(folder / f'odd\udcff{suffix}', folder / f'{"n" * 251}{suffix}')
    result = predict(models, 'segmentation', folder, '--out-dir', out)
    assert result.returncode == 0, result.stderr
    assert 'results of 4 of 4 inputs' in result.stdout
    found = results(out)
    assert {data.get('image', data.get('video')) for data in found.values()} == {str(p) for p in folder.iterdir()}
    assert {'odd\udcff.jpg.json', 'odd\udcff.avi.mp4.json'} < found.keys()
    assert sum(name.startswith('nnn') and len(name) <= 255 for name in found) == 2
    assert all((out / name[: -len('.json')]).stat().st_size for name in found)


def test_what_is_no_file_or_a_linked_folder_is_named(models, tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'endless.png').symlink_to('/dev/zero')
    write_image(tmp_path / 'elsewhere' / 'y.jpg')
    write_image(tmp_path / 'in' / 'x.jpg')
    for name in ('pipe.jpg', 'endless.png'):
        (tmp_path / name).rename(tmp_path / 'in' / name)
    (tmp_path / 'in' / 'linked').symlink_to(tmp_path / 'elsewhere')
    result = predict(models, 'classification', tmp_path / 'in', '--out-dir', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    for name in ('pipe.jpg', 'endless.png'):
        assert f'note: {tmp_path}/in/{name} is passed over, it is no file' in result.stderr
    assert f'note: the folder {tmp_path}/in/linked is passed over, it is a link' in result.stderr
    assert results(tmp_path / 'out').keys() == {'x.jpg.json'}
    # By its name it is a mistake, and the others are done.
    words = (tmp_path / 'in' / 'pipe.jpg', '/dev/zero', tmp_path / 'in' / 'x.jpg', '--out-dir', tmp_path / 'two')
    result = predict(models, 'classification', *words)
    fails_cleanly(result, '2 of 3 inputs')
    assert 'skipped: /dev/zero is no file' in result.stderr
    assert results(tmp_path / 'two').keys() == {'x.jpg.json'}


def test_pixels_are_bounded_and_the_bound_is_an_option(models, tmp_path):
    Image.new('1', (30_000, 30_000)).save(tmp_path / 'bomb.png')
    write_image(tmp_path / 'x.png', size=(40, 50))
    result = predict(models, 'classification', tmp_path, '--out-dir', tmp_path / 'out')
    fails_cleanly(result, '1 of 2 inputs')
    assert 'bomb.png has more than 178,956,970 pixels' in result.stderr
    result = predict(models, 'classification', tmp_path / 'x.png', '--out-dir', tmp_path / 'two', '--max-pixels', 1999)
    fails_cleanly(result, '1 of 1 inputs')
    assert 'x.png has more than 1,999 pixels (50x40)' in result.stderr


def test_images_of_which_8_bits_would_lose_most_are_refused(models, tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((40, 50), 4080, np.uint16))
    cv2.imwrite(str(tmp_path / 'y.tif'), np.full((40, 50), 0.5, np.float32))
    result = predict(models, 'classification', tmp_path, '--out-dir', tmp_path / 'out')
    fails_cleanly(result, '2 of 2 inputs')
    assert '4080 becomes 15' in result.stderr
    assert 'y.tif has values of float32' in result.stderr


def test_a_disk_that_takes_no_more_costs_one_line_and_not_the_other_inputs(models, tmp_path):
    for name in 'abc':
        write_image(tmp_path / 'in' / f'{name}.png')
    cv2.imwrite(str(tmp_path / 'in' / 'b.png'), np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, before[1]))  # a write beyond fails as on a full disk
    try:
        result = predict(models, 'segmentation', tmp_path / 'in', '--out-dir', tmp_path / 'out')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fails_cleanly(result, '1 of 3 inputs')
    assert f'in/b.png cannot write {tmp_path}/out/b.png (File too large)' in result.stderr
    assert results(tmp_path / 'out').keys() == {'a.png.json', 'c.png.json'}
    assert not [path for path in (tmp_path / 'out').iterdir() if 'b.png' in path.name or path.name.startswith('.')]


def test_models_of_four_channels(tmp_path):
    """From images that are stored so; others are refused."""
    source = tmp_path / 'source.py'
    source.write_text(
        SMALL_CONFIGS['classification'].replace('arch=dict', 'in_channels=4, arch=dict')
        + """
data_preprocessor.update(mean=[0] * 4, std=[255] * 4, to_rgb=False)
"""
    )
    cfg = Config.fromfile(source)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.dump(tmp_path / 'four.py')
    init_default_scope(cfg.default_scope)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'x.pth')
    cv2.imwrite(str(tmp_path / 'four.png'), np.random.default_rng(0).integers(0, 255, (40, 50, 4), np.uint8))
    write_image(tmp_path / 'three.png')
    words = (tmp_path / 'four.png', tmp_path / 'three.png', '--out-dir', tmp_path / 'out')
    result = tool_here('predict.py', tmp_path / 'four.py', tmp_path / 'x.pth', *words)
    fails_cleanly(result, '1 of 2 inputs')
    assert 'three.png has 3 channels, but the model takes 4' in result.stderr
    assert results(tmp_path / 'out').keys() == {'four.png.json'}
