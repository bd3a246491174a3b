"""Images of any kind and name are read, or refused in one line; text in images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from helpers import write_image
from scopevit.utils.errors import UserError
from scopevit.utils.image import annotated, read_header, read_image, text_width, unreadable_files_named
from scopevit.utils.image import write_image as write


def test_what_is_no_file_is_not_read(tmp_path):
    for path in ('/dev/zero', str(tmp_path), 'with\0null'):
        with pytest.raises(UserError):
            read_image(path)
        assert read_header(path) is None


def test_an_image_that_is_gone_is_named():
    with pytest.raises(UserError, match='image no.jpg does not exist; check the data set'), unreadable_files_named():
        LoadImageFromFile()(dict(img_path='no.jpg'))


def test_pixels_are_counted_before_they_are_decoded(tmp_path):
    path = str(write_image(tmp_path / 'x.png', size=(40, 50)))
    assert read_image(path, most_pixels=2000).shape == (40, 50, 3)
    with pytest.raises(UserError, match=r'more than 1,999 pixels \(50x40\)'):
        read_image(path, most_pixels=1999)
    Image.new('1', (30_000, 30_000)).save(tmp_path / 'bomb.png')
    with pytest.raises(UserError, match='more than 178,956,970 pixels'):
        read_image(str(tmp_path / 'bomb.png'))


@pytest.mark.parametrize(
    ('suffix', 'header', 'kind'),
    [
        ('hdr', b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 40 +X 50\n', np.float32),
        ('pfm', b'PF\n50 40\n-1\n', np.float32),
        ('pam', b'P7\nWIDTH 50\nHEIGHT 40\n', np.uint8),
    ],
)
def test_pixels_of_formats_that_pillow_does_not_know_are_counted_too(tmp_path, suffix, header, kind):
    path = str(tmp_path / f'x.{suffix}')
    cv2.imwrite(path, np.ones((40, 50, 3), kind))
    assert Path(path).read_bytes().startswith(header)
    assert read_image(path, any_depth=True, most_pixels=2000).shape == (40, 50, 3)
    with pytest.raises(UserError, match=r'more than 1,999 pixels \(50x40\)'):
        read_image(path, any_depth=True, most_pixels=1999)


def test_four_channels_are_read_as_stored_or_refused(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (6, 7, 4), np.uint8)
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    np.testing.assert_array_equal(read_image(str(tmp_path / 'x.png'), 4), image)
    write_image(tmp_path / 'three.png')
    with pytest.raises(UserError, match='has 3 channels, but the model takes 4'):
        read_image(str(tmp_path / 'three.png'), 4)


def test_names_of_any_bytes_are_written(tmp_path):
    path = str(tmp_path) + '/x\udcff.png'
    write(path, np.full((4, 4), 7, np.uint8))
    assert read_image(path, 1).tolist() == [[7] * 4] * 4
    with pytest.raises(UserError, match='OpenCV cannot write it'):
        write(str(tmp_path / 'x.unknown'), np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize('size', [(1, 1), (7, 9), (300, 400)])
def test_a_line_of_text_fits_into_any_image(size):
    image = np.full((*size, 3), 200, np.uint8)
    changed = (annotated(image, 'no box with a score of 0.3 or more; the best: 0.12') != image).any(-1)
    assert changed[0].all()
    assert size[0] < 300 or not changed[40:].any()
    assert text_width('wide', 20) > text_width('wide', 10) > 0
