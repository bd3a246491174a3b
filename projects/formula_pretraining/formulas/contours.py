"""Shapes of concentric closed curves whose radius is a sum of two waves."""

import numpy as np

from .drawing import filled_area

LINES = (1, 8)  # of a class, least and most
WAVES = (2, 12)  # of a turn
HEIGHTS = (0.05, 0.35)  # of the waves, as a share of the radius
INNER = (0.15, 0.85)  # radius of the innermost line, as a share of the outermost
TWIST = 0.5  # radians by which the innermost line is turned at most
CORNERS = (3, 24)  # of the curves that are polygons
ROUGHNESS = 0.04  # at most, as a share of the radius
NARROWEST = 0.5  # width as a share of the height
AREAS = (0.1, 0.7)  # of a class's shape without variation, as a share of its bounding square
VARIATION = 0.15  # of heights, width and inner radius as a share, of angles in radians
KINKS = 24  # of the roughness, in a turn


class RadialContours:
    """One to eight similar curves of radius 1 + a sin(m t + p) + b sin(n t), half of the classes as polygons.

    Args:
        rng: Draws the parameters of the class; shapes that are too small or too full are drawn again.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        while True:
            self._draw(rng)
            area, aspect = filled_area(self._curves(np.zeros(7), np.zeros(KINKS), 32))
            if AREAS[0] <= area <= AREAS[1] and aspect > 0.25:
                return

    def points(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """The points (2, N) of an instance, in float32; close enough for lines in an image of ``size``."""
        drawn = 2 * rng.random(7 + KINKS) - 1
        return self._curves(VARIATION * drawn[:7], self.roughness * drawn[7:], size)

    def _draw(self, rng: np.random.Generator) -> None:
        self.lines = int(rng.integers(LINES[0], LINES[1] + 1))
        self.waves = rng.integers(WAVES[0], WAVES[1] + 1, (2, 1))
        self.heights = rng.uniform(*HEIGHTS, 2)
        self.phases = np.array([rng.uniform(0, 2 * np.pi), 0])
        self.inner = rng.uniform(*INNER)
        self.twist = rng.uniform(-TWIST, TWIST)
        self.corners = int(rng.integers(CORNERS[0], CORNERS[1] + 1)) if rng.random() < 0.5 else 0
        self.width = rng.uniform(NARROWEST, 1)
        self.roughness = rng.uniform(0, ROUGHNESS)

    def _curves(self, varied: np.ndarray, kinks: np.ndarray, size: int) -> np.ndarray:
        dense = 8 * size  # points of a curve, closer than pixels
        turn = np.arange(self.corners or dense) / (self.corners or dense)  # from 0 to 1, (V,)
        # (2, V): each wave at each angle
        waves = np.sin(2 * np.pi * self.waves * turn + (self.phases + varied[:2])[:, None])
        radius = 1 + (self.heights * (1 + varied[2:4])) @ waves
        radius += np.interp(turn * KINKS, np.arange(KINKS + 1), np.append(kinks, kinks[0]))
        curve = radius * np.exp(2j * np.pi * turn)
        if self.corners:
            curve = _closed_polygon(curve, dense)
        # Each line is the curve, smaller and turned: (L,) x (M,) -> (L, M)
        steps = np.linspace(0, 1, self.lines)
        inner = min(self.inner * (1 + varied[4]), 0.9)
        copies = (1 + (inner - 1) * steps) * np.exp(1j * (self.twist + varied[5]) * steps)
        lines = np.outer(copies, curve).ravel()
        points = np.empty((2, lines.size), np.float32)
        points[0], points[1] = lines.real * (self.width * (1 + varied[6])), lines.imag
        return points


def _closed_polygon(corners: np.ndarray, number: int) -> np.ndarray:
    """So many points on the edges between complex numbers."""
    place = np.arange(number) * (len(corners) / number)
    first = place.astype(np.intp)
    share = place - first
    return corners[first] * (1 - share) + np.roll(corners, -1)[first] * share
