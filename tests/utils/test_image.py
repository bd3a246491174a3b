"""Text in images."""

import numpy as np
import pytest

from scopevit.utils.image import annotated, text_width


@pytest.mark.parametrize('size', [(1, 1), (7, 9), (300, 400)])
def test_a_line_of_text_fits_into_any_image(size):
    image = np.full((*size, 3), 200, np.uint8)
    changed = (annotated(image, 'no box with a score of 0.3 or more; the best: 0.12') != image).any(-1)
    assert changed[0].all()
    assert size[0] < 300 or not changed[40:].any()
    assert text_width('wide', 20) > text_width('wide', 10) > 0
