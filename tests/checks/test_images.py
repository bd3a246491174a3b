"""What becomes of an image when it is read is said beforehand: turned, cut to 8 bits, or passed over."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from PIL import Image

from scopevit.checks.images import check_files, check_passed_over, check_there, spread
from scopevit.checks.part import Part
from scopevit.utils.errors import UserError
from scopevit.utils.image import lost_depth, read_image


def part(color_type='color'):
    transforms = [LoadImageFromFile(color_type=color_type)]
    return Part('train', '', SimpleNamespace(pipeline=SimpleNamespace(transforms=transforms)))


def found(items, color_type='color'):
    return [(finding.severity, finding.text) for finding in check_files(part(color_type), items)]


def turned(folder, orientation, size=(80, 60)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', size, (90, 10, 10)).save(folder / 'turned.jpg', exif=exif)
    return str(folder / 'turned.jpg')


@pytest.mark.parametrize(
    ('orientation', 'labelled', 'severity'),
    [
        (1, (80, 60), None),
        (3, (80, 60), 'warning'),  # upside down: no size tells of what the annotations are
        (6, (80, 60), 'error'),
        (6, (60, 80), 'note'),
        (9, (80, 60), None),  # there is no such orientation
    ],
)
def test_turned_images_whose_annotations_are_not(orientation, labelled, severity, tmp_path):
    path = turned(tmp_path, orientation)
    Image.new('L', labelled).save(tmp_path / 'map.png')
    boxes = dict(img_path=path, width=labelled[0], height=labelled[1])
    for item in (boxes, dict(img_path=path, seg_map_path=str(tmp_path / 'map.png'))):
        findings = found([item])
        assert [s for s, _ in findings] == ([severity] if severity else [])
        assert all('turned.jpg' in text and '1 of 1 images' in text for _, text in findings)
        assert found([item], 'color_ignore_orientation') == []
    assert [s for s, _ in found([dict(img_path=path)])] == (['note'] if severity else [])


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        (np.uint16([[4080, 100]]), 'up to 4080 of 16 bits, of which the upper 8 are read: 4080 becomes 15'),
        (np.float32([[0.25, 235]]), 'values of float32'),
        (np.uint16([[65535, 100]]), None),
        (np.uint8([[200, 100]]), None),
    ],
    ids=['12 bits', 'float', '16 bits', '8 bits'],
)
def test_images_of_more_than_8_bits(values, says, tmp_path):
    path = str(tmp_path / 'x.tiff')
    cv2.imwrite(path, values.repeat(8, 0).repeat(8, 1))
    if says is None:
        assert found([dict(img_path=path)]) == []
        assert abs(int(read_image(path)[0, 0, 0]) - int(values[0, 0] >> (8 * (values.itemsize - 1)))) <= 1
        return
    ((severity, text),) = found([dict(img_path=path)])
    assert severity == 'error'
    assert says in text
    assert 'to 8 bits' in text
    assert found([dict(img_path=path)], 'unchanged') == []
    with pytest.raises(UserError, match='convert it to 8 bits'):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, 1, as_stored=True)[::8, ::8], values)


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_a_hot_pixel_does_not_make_16_bits_of_fewer(bits, tmp_path):
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 2**bits, (40, 50), dtype=np.uint16)
        values[i, 7] = 65535
        cv2.imwrite(str(tmp_path / f'{i}.tif'), values)
    items = [dict(img_path=str(tmp_path / f'{i}.tif')) for i in range(3)]
    ((severity, text),) = found(items)
    assert severity == 'error'
    assert 'up to 65535 of 16 bits, but 99.9 % of them go up to' in text
    with pytest.raises(UserError, match=f'becomes {2 ** (bits - 8) - 1}: convert it to 8 bits'):
        read_image(items[0]['img_path'])


def test_a_dark_image_of_full_depth_is_one(tmp_path):
    values = np.random.default_rng(0).exponential(3000, (400, 400)).clip(0, 65535).astype(np.uint16)
    assert values.max() > 2**15
    cv2.imwrite(str(tmp_path / 'x.tif'), values)
    assert found([dict(img_path=str(tmp_path / 'x.tif'))]) == []
    assert read_image(str(tmp_path / 'x.tif')).max() > 127


def test_an_alpha_channel_says_nothing_of_the_depth(tmp_path):
    values = np.full((4, 4, 4), 4000, np.uint16)
    values[..., 3] = 65535
    cv2.imwrite(str(tmp_path / 'x.png'), values)
    assert '4000 becomes 15' in lost_depth(read_image(str(tmp_path / 'x.png'), None, any_depth=True))


def test_loaders_of_ones_own_read_as_they_like(tmp_path):
    class Loader(LoadImageFromFile):
        def transform(self, results):
            return results

    own = Part('train', '', SimpleNamespace(pipeline=SimpleNamespace(transforms=[Loader(), LoadAnnotations()])))
    cv2.imwrite(str(tmp_path / 'x.tif'), np.full((4, 4), 300, np.uint16))
    item = dict(img_path=str(tmp_path / 'x.tif'), seg_map_path='not/there.png')  # mmdet names one without reading it
    assert list(check_files(own, [item])) == []
    assert list(check_there(own, [dict(item, img_path='in/an/archive.tif')])) == []
    ((severity, text),) = [(f.severity, f.text) for f in check_there(part(), [dict(img_path='not/there.tif')])]
    assert severity == 'error'
    assert '1 of 1 images' in text


def test_small_bright_objects_on_black_need_no_other_depth(tmp_path):
    values = np.zeros((100, 100), np.uint16)
    values[:5, :5] = 50000
    cv2.imwrite(str(tmp_path / 'x.tif'), values)
    assert found([dict(img_path=str(tmp_path / 'x.tif'))]) == []
    assert read_image(str(tmp_path / 'x.tif')).max() == 50000 >> 8


def test_a_dark_image_among_others_is_no_fault(tmp_path):
    for name, highest in (('dark', 300), ('dusk', 400), ('bright', 60000)):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((4, 4), highest, np.uint16))
    cv2.imwrite(str(tmp_path / 'other.png'), np.full((4, 4), 200, np.uint8))

    def of(*names):
        return found([dict(img_path=str(tmp_path / f'{name}.png')) for name in names])

    assert of('bright', 'dark') == of('dark', 'bright') == []
    assert [severity for severity, _ in of('dark', 'other')] == ['error']
    ((severity, text),) = of('bright', 'dark', 'dusk')  # images of two kinds of cameras, maybe
    assert severity == 'warning'
    assert '2 of the 3 images of 16 bits' in text


def test_files_that_are_passed_over_are_counted(tmp_path):
    for i, suffix in enumerate(('.jpg', '.JPG', '.webp', '.webp', '.txt')):
        (tmp_path / f'{i}{suffix}').touch()
    (tmp_path / '._0.webp').touch()  # what macOS leaves beside files
    (finding,) = check_passed_over(part(), str(tmp_path), lambda path: path.endswith('.jpg'), 'convert them')
    assert finding.severity == 'warning'
    assert '3 images of' in finding.text
    assert '2 .webp, 1 .JPG' in finding.text
    assert list(check_passed_over(part(), str(tmp_path), lambda path: True, '')) == []


def test_samples_reach_from_the_first_to_the_last():
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(1000), 3) == [0, 500, 999]
