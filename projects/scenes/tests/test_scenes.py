"""Synthetic scenes: what the labels say is what the pixels show, in files that the toolboxes read unchanged."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from helpers import ROOT, fails_cleanly, load_tool, tool_here
from projects.scenes.generator import make_object, make_scene
from projects.scenes.generator.compose import Canvas
from projects.scenes.generator.layouts import IMAGENET_INDEX, annotate, generator, label_map, polygons, run_lengths
from projects.scenes.generator.shapes import OBJECTS

PROJECT = ROOT / 'projects' / 'scenes'
MAKE_SCENES = PROJECT / 'make_scenes.py'


def scenes(count, **options):
    return [make_scene(np.random.default_rng([5, i]), **options) for i in range(count)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """All three layouts, small."""
    out = tmp_path_factory.mktemp('scenes')
    tool_here(MAKE_SCENES, '--out-dir', out, '--seed', 3, '--count', 42, 20)
    return out


def build(scope, **settings):
    with DefaultScope.overwrite_default_scope(scope):
        return DATASETS.build(settings)


@pytest.mark.parametrize('category', OBJECTS)
def test_an_object_changes_the_pixels_of_its_mask_and_no_others(category):
    for seed in range(5):
        canvas = Canvas(np.random.default_rng([seed, 9]), 120, 150)
        before = canvas.scene.image.copy()
        assert canvas.add_thing(category, 80)
        thing = canvas.scene.things[0]
        assert thing.category == category
        changed = (canvas.scene.image != before).any(-1)
        assert not (changed & ~thing.mask).any()
        assert np.count_nonzero(changed & thing.mask) > 0.98 * np.count_nonzero(thing.mask)


def test_what_is_in_front_hides_what_is_behind():
    for scene in scenes(12):
        seen = sum(thing.mask.astype(int) for thing in scene.things) + scene.unlabelled
        assert seen.max() <= 1
        for thing in scene.things:
            if not thing.crowd:
                assert 0.4 * thing.full_area <= np.count_nonzero(thing.mask) <= thing.full_area
    assert any(np.count_nonzero(t.mask) < t.full_area for scene in scenes(12) for t in scene.things)


def test_sizes_span_a_factor_of_sixteen_and_all_of_cocos_ranges():
    sides, areas = [], []
    for scene in scenes(120):
        for thing in scene.things:
            rows, columns = np.nonzero(thing.mask)
            sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
            areas.append(len(rows))
    assert max(sides) >= 16 * min(sides), (max(sides), min(sides))
    small, large = np.mean(np.array(areas) < 32**2), np.mean(np.array(areas) > 96**2)
    assert small > 0.2
    assert large > 0.02
    assert small + large < 0.9


def test_outlines_and_run_lengths_decode_to_the_mask():
    for scene in scenes(10, crowd=True):
        for thing in scene.things:
            height, width = thing.mask.shape
            decoded = coco_mask.decode(coco_mask.frPyObjects(run_lengths(thing.mask), height, width))
            assert (decoded == thing.mask).all()
            decoded = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons(thing.mask), height, width)))
            outlines, _ = cv2.findContours(thing.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled = cv2.drawContours(np.zeros((height, width), np.uint8), outlines, -1, 1, cv2.FILLED)
            overlap = np.count_nonzero(decoded & filled) / np.count_nonzero(decoded | filled)
            assert overlap > 0.99


def test_joints_lie_on_the_figure_and_hidden_ones_are_marked():
    joints = hidden = cut_off = 0
    for scene in scenes(60):
        for thing in scene.things:
            if thing.category != 'person' or thing.crowd:
                assert thing.keypoints is None
                continue
            labelled = thing.keypoints[thing.keypoints[:, 2] > 0]
            for x, y, visibility in labelled:
                assert thing.mask[int(y), int(x)] == (visibility == 2)
            assert (thing.keypoints[thing.keypoints[:, 2] == 0] == 0).all()
            joints += len(labelled)
            hidden += (labelled[:, 2] == 1).sum()
            cut_off += 0 < len(labelled) < 14
    assert joints > 200
    assert hidden > 10
    assert cut_off > 3


def test_left_is_on_the_right_of_a_figure_that_looks_at_us():
    for seed in range(20):
        figure = OBJECTS['person'](np.random.default_rng(seed))
        faces_us = figure.shown[0]
        assert (figure.joints[5, 0] > figure.joints[6, 0]) == faces_us
        assert (figure.joints[11, 0] > figure.joints[12, 0]) == faces_us


def test_an_image_depends_on_its_own_number_alone(folder, tmp_path):
    tool_here(MAKE_SCENES, '--out-dir', tmp_path, '--seed', 3, '--only', 'coco', '--count', 3, 2)
    for image in (tmp_path / 'coco' / 'train2017').iterdir():
        assert image.read_bytes() == (folder / 'coco' / 'train2017' / image.name).read_bytes()
    one, other = (make_scene(generator(seed, 'coco', 'train', 0)).image for seed in (3, 4))
    assert one.shape != other.shape or (one != other).any()


def test_enlarged_scenes_have_the_same_labels(folder, tmp_path):
    tool_here(MAKE_SCENES, '--out-dir', tmp_path, '--seed', 3, '--count', 3, 1, '--enlarge', 3)
    for kind in ('instances', 'person_keypoints'):
        small, large = (
            json.loads((root / f'coco/annotations/{kind}_train2017.json').read_text()) for root in (folder, tmp_path)
        )
        for image, enlarged in zip(small['images'], large['images']):
            assert (enlarged['height'], enlarged['width']) == (3 * image['height'], 3 * image['width'])
            pixels = cv2.imread(str(tmp_path / 'coco/train2017' / enlarged['file_name']))
            assert pixels.shape[:2] == (enlarged['height'], enlarged['width'])
        for thing, enlarged in zip(small['annotations'], large['annotations']):
            assert enlarged['category_id'] == thing['category_id']
            assert enlarged['bbox'] == [3 * side for side in thing['bbox']]
            assert enlarged['area'] == pytest.approx(9 * thing['area'], rel=0.1, abs=40)
            if thing.get('num_keypoints'):
                joints, others = (np.reshape(a['keypoints'], (-1, 3)) for a in (thing, enlarged))
                assert others == pytest.approx(joints * [3, 3, 1], abs=0.03)
    name = 'ade/ADEChallengeData2016/annotations/training/ADE_train_00000001.png'
    labels, enlarged = (cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED) for root in (folder, tmp_path))
    assert (enlarged[1::3, 1::3] == labels).all()


def test_coco_layout(folder):
    root = folder / 'coco'
    coco = COCO(str(root / 'annotations' / 'instances_train2017.json'))
    assert len(coco.imgs) == 42
    assert len(coco.cats) == 80
    assert {coco.cats[a['category_id']]['name'] for a in coco.anns.values()} <= {
        'sports ball' if c == 'ball' else c for c in OBJECTS
    }
    crowds = [a for a in coco.anns.values() if a['iscrowd']]
    assert crowds
    assert all(isinstance(a['segmentation'], dict) and a['category_id'] == 1 for a in crowds)
    shapes = set()
    for number, info in coco.imgs.items():
        image = cv2.imread(str(root / 'train2017' / info['file_name']))
        assert image.shape[:2] == (info['height'], info['width'])
        shapes.add(image.shape)
        for a in coco.loadAnns(coco.getAnnIds(number)):
            x, y, w, h = a['bbox']
            assert x >= 0
            assert y >= 0
            assert x + w <= info['width']
            assert y + h <= info['height']
            mask = coco.annToMask(a)
            assert mask.any()
            assert mask.sum() == a['area']
            rows, columns = np.nonzero(mask)
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(found - (x, y, x + w, y + h)).max() <= 2
    assert len(shapes) > 10
    assert any(h > w for h, w, _ in shapes)
    assert any(h < w for h, w, _ in shapes)
    assert cv2.imread(str(root / 'train2017' / '000000000040.jpg'), cv2.IMREAD_UNCHANGED).ndim == 2  # a grey one

    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    files = dict(data_root=str(root), data_prefix=dict(img='val2017/'), ann_file='annotations/instances_val2017.json')
    dataset = build('mmdet', type='CocoDataset', pipeline=pipeline, **files)
    assert len(dataset) == 20
    assert all(len(dataset[i]['gt_bboxes_labels']) == len(dataset[i]['gt_masks']) for i in range(20))

    files['ann_file'] = 'annotations/person_keypoints_val2017.json'
    figures = build('mmpose', type='CocoDataset', data_mode='topdown', pipeline=[], **files)
    assert len(figures) > 5
    assert figures[0]['keypoints'].shape == (1, 17, 2)
    bbox_file = str(root / 'person_detection_results' / 'COCO_val2017_detections_AP_H_56_person.json')
    detected = build('mmpose', type='CocoDataset', test_mode=True, bbox_file=bbox_file, pipeline=[], **files)
    assert len(detected) > 5


def test_ade20k_layout(folder):
    root = folder / 'ade' / 'ADEChallengeData2016'
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    dataset = build('mmseg', type='ADE20KDataset', data_root=str(root), data_prefix=prefix, pipeline=pipeline)
    assert len(dataset) == 42
    classes = dataset.metainfo['classes']
    found = set()
    for i in range(len(dataset)):
        item = dataset[i]
        assert item['gt_seg_map'].shape == item['img'].shape[:2]
        found |= set(np.unique(item['gt_seg_map']))
    assert 255 in found  # objects of no category are ignored
    names = {classes[k] for k in found - {255}}
    assert set(OBJECTS) <= names
    assert {'sky', 'building', 'grass', 'road', 'sea', 'sand'} <= names

    numbers = {name: k for k, name in enumerate(classes, 1)}
    scene = make_scene(generator(3, 'ade20k', 'train', 0))
    label = label_map(scene, numbers)
    stored = cv2.imread(str(root / 'annotations' / 'training' / 'ADE_train_00000001.png'), cv2.IMREAD_UNCHANGED)
    assert (stored == label).all()
    for thing in scene.things:
        assert (label[thing.mask] == numbers[thing.category]).all()
    assert (label[scene.unlabelled] == 0).all()


def test_imagenet_layout(folder):
    root = folder / 'imagenet'
    assert sum(1 for _ in (root / 'train').iterdir()) == 1000
    pipeline = [dict(type='LoadImageFromFile')]
    dataset = build('mmpretrain', type='ImageNet', data_root=str(root), split='train', pipeline=pipeline)
    assert len(dataset) == 42
    words = dict(
        person='ballplayer', car='sports car', bus='school bus', airplane='airliner', boat='yawl', ball='soccer ball',
        bottle='wine bottle', vase='vase', clock='analog clock',
    )  # fmt: skip
    words['traffic light'] = 'traffic light'
    for category, index in IMAGENET_INDEX.items():
        assert words[category] in dataset.metainfo['classes'][index]
    assert {dataset[i]['gt_label'] for i in range(42)} == set(IMAGENET_INDEX.values())
    assert dataset[7]['img'].shape[0] != dataset[7]['img'].shape[1]


def test_colours_do_not_give_the_class_away():
    """On a tenth of the images; controls.py takes all."""
    controls, names = load_tool(PROJECT / 'controls.py'), list(OBJECTS)

    def histograms(split, count):
        images = (make_object(generator(0, 'imagenet', split, i), names[i % 10]).image for i in range(count))
        return torch.from_numpy(np.stack([*map(controls.histogram, images)])), torch.arange(count) % 10

    best = controls.accuracy_by_colour(histograms('train', 1200), histograms('val', 400))
    print(f'colour histograms: {best:.1%}')
    assert 0.1 < best <= controls.MOST_BY_COLOUR


def test_existing_folders_are_left_alone(folder, tmp_path):
    result = tool_here(MAKE_SCENES, '--out-dir', folder, '--seed', 3, '--count', 42, 20)
    assert result.stdout.count('is there already') == 3
    record = folder / 'coco' / 'scenes.json'
    content = json.loads(record.read_text())
    assert content.pop('enlarge') == 1
    record.write_text(json.dumps(content))  # as before there was --enlarge
    result = tool_here(MAKE_SCENES, '--out-dir', folder, '--seed', 3, '--count', 42, 20)
    assert result.stdout.count('is there already') == 3
    mine = tmp_path / 'coco' / 'precious.txt'
    mine.parent.mkdir()
    mine.write_text('mine')
    fails_cleanly(tool_here(MAKE_SCENES, '--out-dir', tmp_path, '--only', 'coco'), 'holds other data')
    assert [p.name for p in tmp_path.rglob('*')] == ['coco', 'precious.txt']
    fails_cleanly(tool_here(MAKE_SCENES, '--out-dir', folder, '--only', 'coco'), 'holds other scenes', 'wanted')
    fails_cleanly(tool_here(MAKE_SCENES, '--out-dir', tmp_path, '--count', 0, 1), 'at least 1')
    fails_cleanly(tool_here(MAKE_SCENES, '--out-dir', '/proc/x', '--count', 1, 1), 'cannot write')


def test_crowds_carry_no_joints(folder):
    content = json.loads((folder / 'coco' / 'annotations' / 'person_keypoints_train2017.json').read_text())
    assert {a['num_keypoints'] for a in content['annotations'] if a['iscrowd']} == {0}
    assert all(len(a['keypoints']) == 51 for a in content['annotations'])
    scene = make_scene(np.random.default_rng(1), crowd=True)
    assert 'num_keypoints' not in annotate(scene.things[0], image_id=1)
