"""Checking data: small data in the real layouts pass, and every fault is named, all at once."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from helpers import (
    ROOT,
    fails_cleanly,
    image_folders,
    imagenet_folders,
    tool_here,
    write_ade20k,
    write_coco,
    write_image,
)

CONFIGS = ROOT / 'configs'
RETINANET = CONFIGS / 'detection' / 'retinanet_scopevit-xtiny_fpn_1x_coco.py'
MASK_RCNN = CONFIGS / 'detection' / 'mask-rcnn_scopevit-xtiny_fpn_1x_coco.py'
FPN = CONFIGS / 'segmentation' / 'scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512.py'
POSE = CONFIGS / 'pose' / 'td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py'
IMAGENET = CONFIGS / 'classification' / 'scopevit-xtiny_8xb128-300e_in1k-256px.py'
CUSTOM = CONFIGS / 'classification' / 'scopevit-tiny_1xb64-30e-ft_custom-256px.py'
THREE_CLASSES = ['model.head.num_classes=3', 'data_preprocessor.num_classes=3']


@functools.lru_cache
def without_bases(config):
    """The same config in one file, which is read in no time."""
    path = Path(tempfile.mkdtemp()) / config.name
    Config.fromfile(config).dump(path)
    return path


def check(config, folder, *options):
    config = without_bases(config) if config.is_relative_to(CONFIGS) else config
    words = ['--cfg-options', *options] if options else []
    return tool_here('data/check_dataset.py', config, *words, cwd=folder)


@pytest.fixture
def coco(tmp_path):
    write_coco(tmp_path / 'data' / 'coco')
    return tmp_path


@pytest.fixture
def ade(tmp_path):
    write_ade20k(tmp_path / 'data' / 'ade' / 'ADEChallengeData2016')
    return tmp_path


def edit(folder, change, kind='instances', split='train2017'):
    """Change an annotation file."""
    path = folder / 'data' / 'coco' / 'annotations' / f'{kind}_{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('config', [RETINANET, MASK_RCNN, POSE], ids=lambda path: path.stem[:9])
def test_coco_passes_and_is_called_a_subset(config, coco):
    result = check(config, coco)
    assert result.returncode == 0, result.stderr
    assert '2 images, a subset of the 118,287' in result.stdout
    assert 'test: the same data as val' in result.stdout
    assert 'can start' in result.stdout


def test_ade20k_passes(ade):
    result = check(FPN, ade)
    assert result.returncode == 0, result.stderr
    assert '2 images, a subset of the 20,210' in result.stdout


@pytest.mark.slow
def test_imagenet_passes_in_a_process_of_its_own(tmp_path):
    imagenet_folders(tmp_path / 'data' / 'imagenet')
    result = tool_here('data/check_dataset.py', IMAGENET, '--count', 3, cwd=tmp_path, check=True)
    assert '1,000 images, a subset of the 50,000' in result.stdout

    # Validation images that were not sorted into folders.
    shutil.rmtree(tmp_path / 'data' / 'imagenet' / 'val')
    write_image(tmp_path / 'data' / 'imagenet' / 'val' / 'ILSVRC2012_val_00000001.JPEG')
    result = check(IMAGENET, tmp_path)
    fails_cleanly(result, 'has 0 class folders', 'ILSVRC2012_img_val.tar')


def test_imagenets_list_is_checked_as_its_folders_are(tmp_path):
    root = tmp_path / 'data' / 'imagenet'
    for split in ('train', 'val'):
        for i in range(3):
            write_image(root / split / f'{i}.JPEG', seed=i)
        (root / 'meta').mkdir(exist_ok=True)
        (root / 'meta' / f'{split}.txt').write_text('0.JPEG 0\n1.JPEG 999\n2.JPEG 5\n')
    result = check(IMAGENET, tmp_path, 'train_dataloader.batch_size=3')  # of which one is not left out
    assert result.returncode == 0, result.stderr
    assert '3 images, a subset of the 1,281,167' in result.stdout
    assert 'Read the notes above first (2)' in result.stdout

    (root / 'val' / '1.JPEG').unlink()
    (root / 'meta' / 'train.txt').write_text('0.JPEG 0\n1.JPEG 1000\n')
    says = ('1 of 3 images in', 'val/1.JPEG', 'have label 1000, but model.head.num_classes is 1000')
    fails_cleanly(check(IMAGENET, tmp_path), *says)
    (root / 'meta' / 'train.txt').write_text('0.JPEG\n')
    fails_cleanly(check(IMAGENET, tmp_path), 'train.txt is not "image label"')


@pytest.mark.parametrize(
    ('config', 'places', 'sources'),
    [
        (
            MASK_RCNN,
            ['data/coco/train2017', 'data/coco/annotations/instances_val2017.json'],
            ['train2017.zip', 'val2017.zip', 'annotations_trainval2017.zip', 'cocodataset.org'],
        ),
        (
            POSE,
            ['annotations/person_keypoints_train2017.json', 'COCO_val2017_detections_AP_H_56_person.json'],
            ['annotations_trainval2017.zip', 'person_detection_results', 'mmpose'],
        ),
        (FPN, ['data/ade/ADEChallengeData2016/annotations/training'], ['ADEChallengeData2016.zip', 'sceneparsing']),
        (
            IMAGENET,
            ['data/imagenet/train', 'data/imagenet/val'],
            ['ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar', 'image-net.org'],
        ),
    ],
    ids=['instances', 'pose', 'segmentation', 'classification'],
)
def test_nothing_there_says_what_to_download_and_where_it_belongs(config, places, sources, tmp_path):
    result = check(config, tmp_path)
    fails_cleanly(result, *places, *sources)
    for place in places:
        assert place in result.stdout  # the tree that the config expects
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_a_wrapped_data_set_is_named(tmp_path):
    config = tmp_path / 'twice.py'
    config.write_text(f"""
_base_ = '{without_bases(RETINANET)}'
twice = dict(_delete_=True, type='RepeatDataset', times=2, dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=twice)
""")
    fails_cleanly(check(config, tmp_path), '--cfg-options train_dataloader.dataset.dataset.data_root=FOLDER')


def test_one_missing_annotation_file_does_not_hide_other_faults(coco):
    (coco / 'data' / 'coco' / 'annotations' / 'instances_val2017.json').unlink()
    (coco / 'data' / 'coco' / 'train2017' / f'{0:012d}.jpg').unlink()
    fails_cleanly(
        check(RETINANET, coco), 'instances_val2017.json does not exist', '1 of 2 images do not exist', '2 to correct'
    )


def _outside(content):
    content['annotations'][0]['bbox'] = [150, 20, 80, 100]


def _flat(content):
    content['annotations'][0]['bbox'][2] = 0


def _strange_category(content):
    content['annotations'][0]['category_id'] = 91


def _strange_image(content):
    content['annotations'][0]['image_id'] = 77


def _other_size(content):
    content['images'][0].update(width=200, height=160)


def _same_ids(content):
    content['annotations'][1]['id'] = content['annotations'][0]['id']


def _no_annotations(content):
    content['annotations'].clear()


def _other_order(content):
    first, second, *_ = content['categories']
    first['name'], second['name'] = second['name'], first['name']


def _other_names(content):
    content['categories'] = [dict(id=1, name='screw'), dict(id=2, name='nut')]


def _fractions(content):
    for annotation in content['annotations']:
        annotation.update(bbox=[0.2, 0.1, 0.4, 0.6], area=0.24)


def _no_area(content):
    del content['annotations'][0]['area']


def _not_coco(content):
    content.pop('images')


@pytest.mark.parametrize(
    ('in_train', 'in_val'),
    [
        ((_outside, 'train: 1 of 2 boxes reach outside the image'), (_flat, 'val: 1 of 2 boxes have no area')),
        ((_strange_category, 'category ids are not among the categories'), (_other_size, 'has 200x150 pixels, but')),
        ((_strange_image, 'of images that the file does not list'), (_same_ids, 'not unique')),
        ((_no_annotations, 'has no annotations'), (_other_order, 'not in the order of the classes')),
        ((_fractions, 'are thinner than a pixel (annotation 1: area 0.24'), (_no_area, '1 of 2 objects have no area')),
        ((_not_coco, 'is not a COCO annotation file'), (_other_names, 'is a category of')),
    ],
)
def test_faults_of_boxes_and_categories(in_train, in_val, coco):
    edit(coco, in_train[0])
    edit(coco, in_val[0], split='val2017')
    fails_cleanly(check(RETINANET, coco), in_train[1], in_val[1])


@pytest.mark.parametrize(
    'mask',
    [[], [[10, 10, 20, 20]], dict(size=[150, 200], counts=[150 * 200]), [[300, 10, 320, 10, 320, 30]]],
    ids=['none', 'a line', 'RLE of nothing', 'outside'],
)
def test_empty_masks_are_found_where_masks_are_learnt(mask, coco):
    edit(coco, lambda content: content['annotations'][0].update(segmentation=mask))
    fails_cleanly(check(MASK_RCNN, coco), 'mask')


def _ten_thousand(change):
    """Copies of the annotations, of which one is changed."""

    def apply(content):
        first, second = content['annotations']
        content['annotations'] = [dict((first, second)[i % 2], id=i + 1) for i in range(10_000)]
        change(content['annotations'][5_000])

    return apply


def test_one_fault_in_ten_thousand_is_a_note_unless_training_would_fail(coco):
    edit(coco, _ten_thousand(lambda annotation: annotation.update(bbox=[10, 10, 0.5, 20])))
    result = check(RETINANET, coco)
    assert result.returncode == 0, result.stderr
    assert 'note: train: 1 of 10000 objects' in result.stdout
    write_coco(coco / 'data' / 'again')
    shutil.copytree(coco / 'data' / 'again', coco / 'data' / 'coco', dirs_exist_ok=True)
    edit(coco, _ten_thousand(lambda annotation: annotation.update(segmentation=[])))
    fails_cleanly(check(MASK_RCNN, coco), 'train: 1 of 10000 masks are missing (annotation 5001')
    edit(coco, _ten_thousand(_few_joints), kind='person_keypoints')
    fails_cleanly(check(POSE, coco), 'train: 1 of 10000 lists of keypoints are not 17 times')


def test_empty_masks_do_not_matter_where_boxes_are_learnt(coco):
    edit(coco, lambda content: content['annotations'][0].update(segmentation=[]))
    assert check(RETINANET, coco).returncode == 0


def test_number_of_classes_is_compared_with_the_heads(coco):
    result = check(MASK_RCNN, coco, 'model.roi_head.bbox_head.num_classes=3')
    fails_cleanly(result, '80 classes', 'model.roi_head.bbox_head.num_classes is 3')
    assert 'mask_head' not in result.stderr


def test_metric_with_a_file_of_its_own(coco):
    result = check(RETINANET, coco, 'val_evaluator.ann_file=elsewhere.json')
    fails_cleanly(result, 'val_evaluator: ann_file elsewhere.json does not exist')


def _no_joints(content):
    for annotation in content['annotations']:
        annotation.update(keypoints=[0] * 51, num_keypoints=0)


def _few_joints(person):
    person['keypoints'] = person['keypoints'][:-3]


def _miscounted(person):
    person['num_keypoints'] = 5


def _joint_outside(person):
    person['keypoints'][0] = 1000


def _instances(content):
    for annotation in content['annotations']:
        del annotation['keypoints']


def test_faults_of_joints(coco):
    edit(coco, _no_joints, kind='person_keypoints')
    fails_cleanly(check(POSE, coco), 'there is none to learn')
    edit(coco, _instances, kind='person_keypoints')
    fails_cleanly(check(POSE, coco), 'has no keypoints')


def test_several_faults_of_joints_are_all_named(coco):
    for fault, person in ((_miscounted, 0), (_joint_outside, 0), (_few_joints, 1)):
        edit(
            coco, lambda content, fault=fault, person=person: fault(content['annotations'][person]), 'person_keypoints'
        )
    fails_cleanly(
        check(POSE, coco),
        '1 of 2 num_keypoints are not the number of visible joints',
        '1 of 2 people have joints outside the image',
        '1 of 2 lists of keypoints are not 17 times',
    )


def test_people_without_joints_are_a_note(coco):
    def change(content):
        content['annotations'][0].update(keypoints=[0] * 51, num_keypoints=0)

    edit(coco, change, kind='person_keypoints')
    result = check(POSE, coco)
    assert result.returncode == 0, result.stderr
    assert 'note: train: 1 of 2 people have no visible joint' in result.stdout


def test_number_of_joints_is_compared_with_the_head(coco):
    fails_cleanly(check(POSE, coco, 'model.head.out_channels=14'), '17 joints', 'model.head.out_channels is 14')


def test_joints_are_counted_as_the_model_learns_them(coco):
    """Converted to those of another data set, or as heatmaps with offsets."""
    converter = "dict(type='KeypointConverter', num_keypoints=5, mapping=[(k, k) for k in range(5)])"
    offsets = "dict(type='UDPHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2, heatmap_type='combined')"
    for name, change, channels in (
        ('converted', f'pipeline[:] = [{converter} if s.type == "RandomHalfBody" else s for s in pipeline]', 5),
        ('combined', f'pipeline[-2].encoder = {offsets}\nmodel = dict(head=dict(decoder={offsets}))', 51),
    ):
        config = coco / f'{name}.py'
        config.write_text(f"""
_base_ = '{without_bases(POSE)}'
pipeline = _base_.train_dataloader.dataset.pipeline
{change}
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = test_dataloader = train_dataloader
""")
        result = check(config, coco, f'model.head.out_channels={channels}')
        assert result.returncode == 0, result.stderr
        fails_cleanly(check(config, coco, 'model.head.out_channels=17'), f'is 17: set it to {channels}')


def test_detections_of_another_split(coco):
    path = coco / 'data' / 'coco' / 'person_detection_results' / 'COCO_val2017_detections_AP_H_56_person.json'
    path.write_text(json.dumps([dict(image_id=99, category_id=1, bbox=[1, 2, 3, 4], score=0.5)]))
    fails_cleanly(check(POSE, coco), '1 of 1 detections', 'dataset.bbox_file=')
    path.write_text('{"a": 1}')
    fails_cleanly(check(POSE, coco), 'is not a list of detections')


def test_corrupt_images(coco):
    file = coco / 'data' / 'coco' / 'train2017' / f'{0:012d}.jpg'
    whole = file.read_bytes()
    for other, content in (('train2017', whole[: len(whole) // 2]), ('val2017', b'not an image')):
        file = coco / 'data' / 'coco' / other / f'{0:012d}.jpg'
        file.write_bytes(content)
    fails_cleanly(check(RETINANET, coco), f'train2017/{0:012d}.jpg is damaged', f'val2017/{0:012d}.jpg is not an image')


def _label(ade, change):
    path = ade / 'data' / 'ade' / 'ADEChallengeData2016' / 'annotations' / 'training' / f'ADE_{0:08d}.png'
    cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda label: np.stack([label] * 3, -1), 'is RGB, but must have one channel'),
        (lambda label: label[:100], 'has 160x100 pixels, but its image 160x128'),
        (lambda label: label + np.uint8(20), 'the classes of the config go from 0 to 150'),
    ],
    ids=['RGB', 'size', 'values'],
)
def test_faults_of_label_maps(change, says, ade):
    _label(ade, change)
    fails_cleanly(check(FPN, ade), says)


def test_label_maps_with_ignored_pixels_only_and_missing_ones(ade):
    root = ade / 'data' / 'ade' / 'ADEChallengeData2016' / 'annotations'
    for path in (root / 'training').iterdir():
        cv2.imwrite(str(path), np.full((128, 160), 255, np.uint8))
    next((root / 'validation').iterdir()).unlink()
    fails_cleanly(check(FPN, ade), 'are ignored', '1 of 2 label maps do not exist')


def test_ones_own_folders(tmp_path):
    root = image_folders(tmp_path / 'data' / 'custom')
    result = check(CUSTOM, tmp_path, *THREE_CLASSES)
    assert result.returncode == 0, result.stderr
    fails_cleanly(check(CUSTOM, tmp_path), '3 classes', 'model.head.num_classes is 10', 'data_preprocessor.num_classes')

    # Labels follow the order of the folders: other folders for validation are other labels.
    (root / 'val' / 'class_0').rename(root / 'val' / 'class_9')
    (root / 'train' / 'class_1' / '0.jpg').write_text('broken')
    shutil.rmtree(root / 'train' / 'class_2')
    (root / 'train' / 'class_2').mkdir()
    fails_cleanly(
        check(CUSTOM, tmp_path, *THREE_CLASSES),
        'class folders are not those of train',
        '1 of 3 class folders',
        'class_2',
    )


def test_a_data_set_that_would_download_itself_does_not(fashion_mnist, tmp_path):
    config = tmp_path / 'fashion.py'
    base = CONFIGS / 'classification' / 'scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
    loaders = ''.join(f'{s}_dataloader = dict(dataset=dict(download=True))\n' for s in ('train', 'val', 'test'))
    config.write_text(f'_base_ = {str(base)!r}\n{loaders}')
    (tmp_path / 'data' / 'fashion_mnist_subset').mkdir(parents=True)
    fails_cleanly(check(config, tmp_path), 'FashionMNIST cannot be built')
    assert list((tmp_path / 'data' / 'fashion_mnist_subset').iterdir()) == []

    roots = [f'{split}_dataloader.dataset.data_root={fashion_mnist}' for split in ('train', 'val', 'test')]
    result = check(base, tmp_path, *roots)
    assert result.returncode == 0, result.stderr
    assert '6,000 items' in result.stdout


def test_any_data_set_is_built_and_loaded(tmp_path):
    """One that is not checked in detail: wrapped twice, in VOC's layout, with one broken file."""
    for i in range(3):
        write_image(tmp_path / 'voc' / 'JPEGImages' / f'{i}.jpg', seed=i, size=(60, 80))
        xml = (
            '<annotation><size><width>80</width><height>60</height></size><object><name>dog</name><difficult>0'
            '</difficult><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax><ymax>50</ymax></bndbox></object>'
            '</annotation>'
        )
        annotations = tmp_path / 'voc' / 'Annotations'
        annotations.mkdir(exist_ok=True)
        (annotations / f'{i}.xml').write_text(xml)
    (tmp_path / 'voc' / 'train.txt').write_text('0\n1\n2\n')
    config = tmp_path / 'voc.py'
    config.write_text(f"""
_base_ = {str(RETINANET)!r}
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]
voc = dict(type='VOCDataset', data_root='voc', ann_file='train.txt', data_prefix=dict(sub_data_root=''),
           pipeline=pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2,
                                     dataset=dict(type='ConcatDataset', datasets=[voc])))
val_dataloader = test_dataloader = None
val_evaluator = test_evaluator = None
""")
    fails_cleanly(check(config, tmp_path), '20 classes', 'model.bbox_head.num_classes is 80')
    twenty = 'model.bbox_head.num_classes=20'
    result = check(config, tmp_path, twenty)
    assert result.returncode == 0, result.stderr
    assert '6 items' in result.stdout
    (tmp_path / 'voc' / 'JPEGImages' / '1.jpg').write_text('broken')
    fails_cleanly(check(config, tmp_path, twenty), '1.jpg')


def test_config_without_data_or_with_a_model_that_does_not_build(coco):
    fails_cleanly(tool_here('data/check_dataset.py', 'nowhere.py'), 'config nowhere.py does not exist')
    fails_cleanly(check(RETINANET, coco, 'model.backbone.arch=huge'), 'the model cannot be built')
