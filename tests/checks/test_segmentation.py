"""Label maps: their form, their depth, and whether each class occurs."""

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import write_image
from scopevit.checks.part import Part
from scopevit.checks.segmentation import check_segmentation
from scopevit.checks.training import check_quickly


@pytest.fixture
def maps(tmp_path):
    for i in range(3):
        write_image(tmp_path / 'images' / f'{i}.jpg', size=(12, 16))
        (tmp_path / 'maps').mkdir(exist_ok=True)
        write_map(tmp_path, i, np.arange(12 * 16).reshape(12, 16) % 3)
    return tmp_path


def write_map(folder, i, labels):
    cv2.imwrite(str(folder / 'maps' / f'{i}.png'), labels.astype(np.uint8))


def check(
    folder,
    classes=('other', 'road', 'car'),
    where='train',
    backend='pillow',
    quickly=False,
    backend_args=None,
    **settings,
):
    from mmseg.datasets import BaseSegDataset

    loads = dict(imdecode_backend=backend, backend_args=backend_args)
    steps = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations', **loads)]
    dataset = BaseSegDataset(
        data_prefix=dict(img_path=str(folder / 'images'), seg_map_path=str(folder / 'maps')),
        metainfo=dict(classes=classes),
        pipeline=steps,
        lazy_init=True,
        **settings,
    )
    part = Part(where, '', dataset)
    if quickly:
        dataset.full_init()
    found = check_quickly([part]) if quickly else check_segmentation(part)
    return [finding for finding in found if finding.severity != 'info']


def test_sound_label_maps_pass(maps):
    assert check(maps) == []
    for path in (maps / 'maps').iterdir():  # a palette's indices are the classes
        image = Image.open(path)
        image = Image.fromarray(np.asarray(image), 'P')
        image.putpalette([0, 0, 0, 200, 30, 40, 7, 8, 9])
        image.save(path)
    assert check(maps) == []
    assert 'has a palette' in check(maps, backend='cv2')[0].text


def test_classes_that_occur_in_no_label_map(maps):
    (finding,) = check(maps, ('other', 'road', 'car', 'tram'))
    assert finding.severity == 'warning'
    assert '1 of 4 classes occur in none of 3 label maps (tram)' in finding.text
    # In a validation they may be missing.
    assert check(maps, ('other', 'road', 'car', 'tram'), where='val') == []


def test_objects_that_are_255_are_ignored_and_said(maps):
    for i in range(3):
        write_map(maps, i, np.where(np.arange(12 * 16).reshape(12, 16) % 2, 255, 0))
    (finding,) = check(maps, ('other', 'nucleus'))
    assert 'occur in none of 3 label maps (nucleus): one class is all there is to learn' in finding.text
    assert 'the values 0, 255' in finding.text


def test_label_maps_that_are_missing_are_told_before_a_training(maps):
    (maps / 'maps' / '1.png').unlink()
    found = check(maps, quickly=True)
    assert [finding.severity for finding in found] == ['error']
    assert '1 of 3 label maps looked for do not exist' in found[0].text
    # What is kept in a store has no path of this machine.
    assert check(maps, quickly=True, backend_args=dict(backend='memcached')) == []


@pytest.mark.parametrize(
    ('values', 'settings', 'says'),
    [
        ((0, 0), {}, 'no other class than other'),
        ((0, 255), {}, 'no other class than other; if all are so, nothing is learnt: their values are 0, 255'),
        ((0, 255), dict(reduce_zero_label=True), 'none of the classes'),
        ((0, 1), {}, None),
        ((1, 2), dict(reduce_zero_label=True), None),
    ],
)
def test_label_maps_of_one_class_are_told_before_a_training(values, settings, says, maps):
    for i in range(3):
        write_map(maps, i, np.where(np.arange(12 * 16).reshape(12, 16) % 2, values[1], values[0]))
    found = check(maps, ('other', 'nucleus'), quickly=True, **settings)
    assert check(maps, ('other', 'nucleus'), where='val', quickly=True, **settings) == []
    assert [finding.severity for finding in found] == ['warning'] * bool(says)
    assert all(says in finding.text for finding in found)


def test_label_maps_of_16_bits_with_values_that_8_do_not_hold(maps):
    for i in range(3):
        cv2.imwrite(str(maps / 'maps' / f'{i}.png'), np.full((12, 16), 300, np.uint16))
    texts = [finding.text for finding in check(maps)]
    assert any('has the value 300, but is read with 8 bits, where that is 44' in text for text in texts)
    for i in range(3):  # while small ones are read as they are
        cv2.imwrite(str(maps / 'maps' / f'{i}.png'), (np.arange(12 * 16).reshape(12, 16) % 3).astype(np.uint16))
    assert check(maps) == []
    assert (
        'there are 256 classes, but label maps are read with 8 bits' in check(maps, tuple(map(str, range(256))))[0].text
    )


def test_label_maps_in_colour_are_counted(maps):
    for i in range(2):
        cv2.imwrite(str(maps / 'maps' / f'{i}.png'), np.zeros((12, 16, 3), np.uint8))
    (finding,) = check(maps)
    assert '0.png is RGB, but must have one channel' in finding.text
    assert '(2 of 3 looked at)' in finding.text


def test_images_of_another_suffix(maps):
    (maps / 'images' / '0.jpg').rename(maps / 'images' / '0.JPG')
    (finding,) = check(maps)
    assert '1 images of' in finding.text
    assert '(1 .JPG): img_suffix of the data set is .jpg' in finding.text
