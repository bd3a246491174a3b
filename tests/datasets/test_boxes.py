"""Boxes of Pascal VOC and YOLO become a file in COCO's format, and every fault is named with its place."""

import json

import pytest

from helpers import fails_cleanly, tool_here, write_image

VOC = '<annotation><filename>elsewhere.tif</filename>{}</annotation>'
OBJECT = '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'


@pytest.fixture
def folders(tmp_path):
    """Three images, of which one has no file of boxes and one lies in a folder of its own."""
    for name in ('a.jpg', 'b.PNG', 'more/c.jpg'):
        write_image(tmp_path / 'images' / name, size=(60, 80))
        (tmp_path / 'labels' / name).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def convert(folder, *classes, options=()):
    words = ('images', 'labels', '--out', 'out/train.json', '--classes', *classes, *options)
    return tool_here('data/boxes_to_coco.py', *words, cwd=folder)


def boxes(folder):
    content = json.loads((folder / 'out/train.json').read_text())
    names = {image['id']: image['file_name'] for image in content['images']}
    return [(names[a['image_id']], a['category_id'], a['bbox']) for a in content['annotations']]


def test_voc_and_yolo_give_the_same_file(folders):
    (folders / 'labels/a.xml').write_text(VOC.format(OBJECT.format('pear', 8, 6, 24, 36)))
    (folders / 'labels/more/c.xml').write_text(VOC.format(OBJECT.format('apple', -1, 0, 80, 60)))
    result = convert(folders, 'apple', 'pear')
    assert 'wrote out/train.json: 3 images (1 without objects), 2 boxes' in result.stdout, result.stderr
    assert boxes(folders) == [('a.jpg', 2, [8, 6, 16, 30]), ('more/c.jpg', 1, [0, 0, 80, 60])]
    of_voc = json.loads((folders / 'out/train.json').read_text())
    assert of_voc['images'][1] == dict(id=2, file_name='b.PNG', width=80, height=60)
    assert of_voc['categories'] == [dict(id=1, name='apple'), dict(id=2, name='pear')]

    for path in (folders / 'labels').rglob('*.xml'):
        path.unlink()
    (folders / 'labels/classes.txt').write_text('apple\npear\n')
    (folders / 'labels/a.txt').write_text('1 0.2 0.35 0.2 0.5\n\n')
    (folders / 'labels/more/c.txt').write_text('0 0.5 0.5 1 1\n')
    assert convert(folders, 'apple', 'pear').returncode == 0
    assert json.loads((folders / 'out/train.json').read_text()) == of_voc


def test_boxes_outside_are_refused_or_cut_off(folders):
    (folders / 'labels/a.txt').write_text('0 1 0.5 0.5 0.5\n0 2 2 0.1 0.1\n')
    fails_cleanly(convert(folders, 'apple'), '2 boxes reach outside', 'labels/a.txt, line 1, labels/a.txt', '--clip')
    assert not (folders / 'out/train.json').exists()
    assert convert(folders, 'apple', options=['--clip']).returncode == 0
    assert boxes(folders) == [('a.jpg', 1, [60, 15, 20, 30])]


@pytest.mark.parametrize(
    ('name', 'text', 'says'),
    [
        ('a.xml', VOC.format(OBJECT.format('plum', 1, 1, 9, 9) * 2), '--classes does not name plum (2 objects)'),
        ('a.txt', '7 0.5 0.5 0.1 0.1', '--classes does not name 7 (1 objects)'),
        ('a.txt', '0 0.5 0.5 0 0.1', '1 boxes have no area (labels/a.txt, line 1)'),
        ('a.txt', '0 0.5 nan 0.1 0.1', '1 boxes have no area (labels/a.txt, line 1)'),
        ('a.txt', '0 0.1 0.1 0.2 0.2 0.3 0.3', 'labels/a.txt, line 1 is not "class x y width height"'),
        (
            'a.xml',
            VOC.format('<object><name>apple</name></object>'),
            'labels/a.xml, object 1 has no name, or no bndbox',
        ),
        ('a.xml', '0 0.5 0.5 1 1', 'labels/a.xml cannot be read as XML'),
        ('z.txt', '0 0.5 0.5 0.1 0.1', 'labels/z.txt: no image of that name in images'),
        ('a.json', '{}', "should hold Pascal VOC's .xml or YOLO's .txt, but has neither"),
    ],
)
def test_faults_are_named_with_their_place(name, text, says, folders):
    (folders / 'labels' / name).write_text(text)
    fails_cleanly(convert(folders, 'apple'), says)


def test_images_that_cannot_be_told_apart_or_read_are_named(folders):
    (folders / 'labels/a.txt').write_text('0 0.5 0.5 0.1 0.1')
    write_image(folders / 'images/a.png')
    fails_cleanly(convert(folders, 'apple'), 'images has several images called a')
    (folders / 'images/a.png').unlink()
    (folders / 'images/a.jpg').write_text('no image')
    fails_cleanly(convert(folders, 'apple'), 'images/a.jpg is not an image that can be read')
