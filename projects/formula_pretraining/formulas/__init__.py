"""Images that are made by formulas, and classes that are their parameters.

An image follows from the seed, the class's family and number, and the instance's index alone; nothing is stored.
"""

import functools

import numpy as np

from .contours import RadialContours
from .drawing import draw
from .iterated import IteratedMaps

FAMILIES = dict(iterated=IteratedMaps, contours=RadialContours)
"""Kinds of formulas by their names; their order is part of what an image follows from."""


def make_image(family: str, number: int, index: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """An instance of a class.

    Args:
        family: A name of :data:`FAMILIES`.
        number: Of the class within its family, from 0.
        index: Of the instance, from 0.
        size: Side of the image in pixels.
        seed: Of all classes and instances.

    Returns:
        An image (size, size, 3) in uint8.
    """
    rng = _stream(seed, family, number, index + 1)
    return draw(formula_of(family, number, seed).points(rng, size), size, rng)


@functools.lru_cache(maxsize=2**15)
def formula_of(family: str, number: int, seed: int) -> IteratedMaps | RadialContours:
    """The formula of a class, which is drawn at the first call of a process."""
    return FAMILIES[family](_stream(seed, family, number, 0))


def _stream(seed: int, family: str, *key: int) -> np.random.Generator:
    """Random numbers of their own for each class and instance, the same on every machine."""
    sequence = np.random.SeedSequence(seed, spawn_key=(list(FAMILIES).index(family), *key))
    return np.random.Generator(np.random.Philox(sequence))
