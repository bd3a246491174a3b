"""COCO files: whatever is wrong in them ends in a finding, also what only the evaluation needs."""

import copy
import json

import pytest

from helpers import write_image
from scopevit.checks.classes import check_same_labels
from scopevit.checks.coco import check_coco
from scopevit.checks.part import Part
from scopevit.checks.pose import PERSON_RULES
from scopevit.checks.rules import check_part


@pytest.fixture
def content(tmp_path):
    images, annotations = [], []
    for i in (1, 2):
        write_image(tmp_path / 'images' / f'{i}.jpg', size=(60, 80))
        images.append(dict(id=i, file_name=f'{i}.jpg', width=80, height=60))
        box, mask = [10, 10, 30, 40], [[10, 10, 40, 10, 40, 50, 10, 50]]
        joints = [value for k in range(17) for value in (12 + k, 20, 2)]
        annotations.append(
            dict(id=i, image_id=i, category_id=i, iscrowd=0, area=1200, bbox=box, segmentation=mask, keypoints=joints)
        )
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    return dict(images=images, annotations=annotations, categories=categories)


def part_of(folder, content, where='train', name='a'):
    from mmdet.datasets import CocoDataset

    (folder / f'{name}.json').write_text(content if isinstance(content, str) else json.dumps(content))
    dataset = CocoDataset(
        ann_file=str(folder / f'{name}.json'),
        data_prefix=dict(img=str(folder / 'images')),
        metainfo=dict(classes=('cat', 'dog')),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)],
        lazy_init=True,
    )
    return Part(where, '', dataset)


def problems(part):
    return [finding for finding in check_coco(part) if finding.is_problem]


def test_a_sound_file_passes(content, tmp_path):
    for where in ('train', 'val'):
        assert problems(part_of(tmp_path, content, where)) == []


NAN = float('nan')
ERRORS = [
    ('annotations', dict(bbox=[NAN, 10, 30, 30]), 'boxes are not [x, y, width, height] in numbers'),
    ('annotations', dict(bbox=['a', 10, 30, 30]), 'boxes are not [x, y, width, height] in numbers'),
    ('annotations', dict(bbox=[10**400, 10, 30, 30]), 'boxes are not [x, y, width, height] in numbers'),
    ('annotations', dict(bbox=None), 'boxes are not [x, y, width, height] in numbers'),
    ('annotations', dict(area='large'), 'objects have no area'),
    ('annotations', dict(iscrowd='no'), 'objects have an iscrowd that is not 0 or 1'),
    ('annotations', dict(image_id=[1]), 'image_id of'),
    ('annotations', dict(segmentation=dict(size=[60, 80], counts=[5])), 'nor RLE of the size of their image'),
    ('annotations', dict(segmentation=dict(size=[1, 1], counts='1')), 'nor RLE of the size of their image'),
    ('annotations', dict(segmentation=[[1e12, 1, 2, 2, 3, 3]]), 'masks are neither polygons in numbers'),
    ('annotations', dict(id=2), 'annotation ids in'),
    ('images', dict(width='80'), 'width of'),
    ('images', dict(height=0), 'have a width and height above 0'),
    ('images', dict(file_name=5), 'file_name of'),
    ('images', dict(file_name='sub\\1.jpg'), 'write file_name with /'),
    ('images', dict(file_name='nowhere://1.jpg'), 'write file_name with /'),
    ('images', dict(file_name='/dev/zero'), 'write file_name with /'),
    ('categories', dict(name='dog'), '2 categories of'),
    ('categories', dict(name=5), 'name of'),
    ('categories', dict(id=2), 'have the id 2'),
]


@pytest.mark.parametrize(('where', 'change', 'says'), ERRORS, ids=lambda value: str(value)[:30])
def test_faults_of_all_kinds_are_errors(where, change, says, content, tmp_path):
    content[where][0].update(change)
    found = problems(part_of(tmp_path, content))
    assert any(says in finding.text and finding.severity == 'error' for finding in found), found


@pytest.mark.parametrize('key', ['id', 'image_id', 'category_id'])
def test_what_an_annotation_lacks_is_named(key, content, tmp_path):
    del content['annotations'][0][key]
    (finding,) = problems(part_of(tmp_path, content))
    assert f"KeyError: '{key}'" in finding.text


def test_images_that_the_training_leaves_out_are_told(content, tmp_path):
    content['annotations'].pop()
    content['images'].append(dict(id=3, file_name='1.jpg', width=20, height=60))
    part = part_of(tmp_path, content)
    part.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    notes = [finding.text for finding in check_coco(part) if finding.severity == 'note']
    assert any('2 of 3 images have no object of the classes and are left out of the training' in text for text in notes)
    assert any('1 of 3 images are less than 32 pixels wide or high and are left out' in text for text in notes)
    part.dataset.filter_cfg = None
    assert not [finding for finding in check_coco(part) if 'left out' in finding.text]


def test_foreign_classes_have_one_remedy_which_says_what_to_write(content, tmp_path):
    part = part_of(tmp_path, content)
    part.dataset._metainfo['classes'] = ('object',)
    (found,) = [finding for finding in check_part(part) if finding.is_problem]
    assert found.text.endswith("write metainfo=dict(classes=('cat', 'dog')) in the data sets")


def test_ids_that_cannot_be_sorted(content, tmp_path):
    content['images'][0]['id'] = content['annotations'][0]['image_id'] = 'first'
    assert problems(part_of(tmp_path, content)) == []
    (finding,) = problems(part_of(tmp_path, content, 'val'))
    assert 'some image ids in' in finding.text


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda a: a.update(id='a1'), 'are 0 or no numbers, which cannot be evaluated'),
        (lambda a: a.update(id=0), 'are 0 or no numbers, which cannot be evaluated'),  # would never be found
        (lambda a: a.pop('iscrowd'), 'objects have no iscrowd, without which they cannot be evaluated'),
    ],
    ids=['text', 'zero', 'iscrowd'],
)
def test_what_only_the_evaluation_needs(change, says, content, tmp_path):
    change(content['annotations'][0])
    assert problems(part_of(tmp_path, content)) == []
    (finding,) = problems(part_of(tmp_path, content, 'val'))
    assert says in finding.text
    assert finding.severity == 'error'


def test_categories_in_another_order_in_val(content, tmp_path):
    other = copy.deepcopy(content)
    other['categories'].reverse()
    those = [part_of(tmp_path, content), part_of(tmp_path, other, 'val', 'b')]
    for part in those:
        problems(part)
    (finding,) = check_same_labels(those)
    assert finding.severity == 'error'
    assert f'label 0 is dog in {tmp_path}/b.json, but cat in {tmp_path}/a.json' in finding.text
    assert list(check_same_labels([those[0], those[0]])) == []


def test_without_annotations_there_is_nothing_to_learn_but_a_test_runs(content, tmp_path):
    content['annotations'] = []
    assert [f.severity for f in problems(part_of(tmp_path, content))] == ['error']
    assert problems(part_of(tmp_path, content, 'val')) == []
    del content['annotations']
    assert problems(part_of(tmp_path, content, 'test')) == []


@pytest.mark.parametrize('text', ['[' * 100_000, '[]', '{"images": [[]]}', '\ufeff{}', 'null'], ids=lambda t: t[:9])
def test_what_is_no_annotation_file(text, tmp_path):
    (finding,) = problems(part_of(tmp_path, text))
    assert 'is not a COCO annotation file' in finding.text


def test_people_without_an_area_cannot_be_evaluated(content, tmp_path):
    from mmpose.datasets import CocoDataset

    def check(where):
        (tmp_path / 'a.json').write_text(json.dumps(content))
        dataset = CocoDataset(
            ann_file=str(tmp_path / 'a.json'), data_prefix=dict(img=str(tmp_path / 'images')), lazy_init=True
        )
        return [f.text for f in check_coco(Part(where, '', dataset), PERSON_RULES) if f.is_problem]

    assert check('val') == []
    del content['annotations'][0]['area'], content['annotations'][1]['bbox']
    assert check('train') == []
    assert len(check('val')) == 1
    assert '1 of 2 people have no area' in check('val')[0]
