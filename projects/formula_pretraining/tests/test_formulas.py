"""Images made by formulas: what they follow from, how much they show, and that colours do not tell the class."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers import ROOT
from projects.formula_pretraining.formulas import FAMILIES, contours, drawing, formula_of, iterated, make_image

families = pytest.mark.parametrize('family', FAMILIES)


@families
@pytest.mark.parametrize('size', [32, 47, 128])
def test_an_image_follows_from_seed_class_and_index_alone(family, size):
    image = make_image(family, 3, 5, size, seed=1)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    formula_of.cache_clear()
    make_image(family, 8, 2, size, seed=1)  # others before it change nothing
    np.random.seed(0)  # nor does the common random state
    assert np.array_equal(image, make_image(family, 3, 5, size, seed=1))
    for other in ((4, 5, size, 1), (3, 6, size, 1), (3, 5, size, 2)):
        assert (image != make_image(family, *other)).mean() > 0.5


@families
def test_another_process_makes_the_same_image(family):
    code = (
        'import sys, hashlib; from projects.formula_pretraining.formulas import make_image; '
        f'print(hashlib.sha256(make_image({family!r}, 3, 5).tobytes()).hexdigest())'
    )
    printed = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == hashlib.sha256(make_image(family, 3, 5).tobytes()).hexdigest()


@families
@pytest.mark.parametrize('size', [32, 128])
def test_shapes_are_neither_specks_nor_blots(family, size):
    areas = []
    for number in range(40):
        for index in range(3):
            points = formula_of(family, number, 0).points(np.random.default_rng(index), size)
            assert np.isfinite(points).all()
            areas.append(drawing.filled_area(points)[0])
    assert min(areas) > 0.05
    assert max(areas) < 0.9
    assert 0.15 < np.mean(areas) < 0.6


def test_maps_contract_also_in_varied_instances():
    for number in range(20):
        formula = formula_of('iterated', number, 0)
        assert iterated.MAPS[0] <= len(formula.values) <= iterated.MAPS[1]
        maps = formula._maps(formula.angles, np.minimum(formula.values * 1.1, iterated.MOST), formula.shifts)
        norms = np.linalg.norm(maps[:, :2, :2], ord=2, axis=(1, 2))
        assert norms.max() < 1


def test_words_are_all_compositions_of_about_one_likelihood():
    rng = np.random.default_rng(0)
    maps = np.zeros((3, 3, 3), np.float32)
    maps[:, :2, :] = rng.uniform(-0.5, 0.5, (3, 2, 3))
    maps[:, 2, 2] = 1
    shares = np.array([0.5, 0.3, 0.2])
    words = iterated.Words(shares, 3)  # the root's children
    assert np.allclose(words.products(maps), maps)
    words = iterated.Words(shares, 5)  # the likeliest of them has become three
    expected = [maps[1], maps[2], *(maps[0] @ maps)]
    assert np.allclose(words.products(maps), expected, atol=1e-6)


def test_points_of_a_known_attractor_lie_on_it():
    """Three maps to half the size make Sierpinski's triangle."""
    formula = formula_of('iterated', 0, 0)
    maps = np.zeros((3, 3, 3), np.float32)
    maps[:] = np.diag([0.5, 0.5, 1])
    maps[:, :2, 2] = [[0, 0], [0.5, 0], [0, 0.5]]
    formula.shares, formula.words = np.full(3, 1 / 3), {}
    x, y = formula._expand(maps, 81)
    formula_of.cache_clear()  # it was changed
    assert x.size == 81 * 81
    # The binary digits of x and y are never both 1, as far as eight maps go
    assert not (np.floor(x * 2**7).astype(int) & np.floor(y * 2**7).astype(int)).any()


def test_contours_are_closed_and_concentric():
    formula = formula_of('contours', 0, 0)
    formula.lines, formula.twist, formula.inner = 3, 0.0, 0.5
    x, y = formula._curves(np.zeros(7), np.zeros(contours.KINKS), 32).reshape(2, 3, -1)
    formula_of.cache_clear()  # it was changed
    assert np.allclose(x[2], 0.5 * x[0], atol=1e-5)
    assert np.allclose(y[1], 0.75 * y[0], atol=1e-5)
    gaps = np.hypot(np.diff(x, append=x[:, :1]), np.diff(y, append=y[:, :1]))
    assert gaps.max() < 2 * 2 / 32  # of a figure as large as the image, two pixels


def test_colours_tell_the_class_hardly_better_than_chance():
    """The nearest mean histogram of 20 classes, of which chance finds 5 %."""
    classes = [(family, number) for family in FAMILIES for number in range(10)]

    def histogram(image):
        return np.sqrt(cv2.calcHist([image], [0, 1, 2], None, [4] * 3, [0, 256] * 3).ravel() / image[..., 0].size)

    rows = np.array([[histogram(make_image(*kind, index)) for index in range(60)] for kind in classes])
    means = rows[:, :40].mean(1)
    tested = rows[:, 40:].reshape(-1, 64)
    found = np.linalg.norm(tested[:, None] - means, axis=2).argmin(1)
    assert (found == np.repeat(np.arange(20), 20)).mean() < 0.1


def test_shapes_tell_the_class():
    """The nearest of pairs of instances, by their sizes' spectra, is more often of the class than by chance."""
    rows = []
    for number in range(10):
        for index in range(20):
            points = formula_of('contours', number, 0).points(np.random.default_rng(index), 32)
            radius = np.hypot(*points)
            rows.append(np.histogram(radius / radius.max(), 16, (0, 1))[0] / radius.size)
    rows = np.array(rows).reshape(10, 20, 16)
    found = np.linalg.norm(rows[:, 10:].reshape(-1, 1, 16) - rows[:, :10].mean(1), axis=2).argmin(1)
    assert (found == np.repeat(np.arange(10), 10)).mean() > 0.5
