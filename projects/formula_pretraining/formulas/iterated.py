"""Shapes of iterated function systems: what a few contracting maps leave as it is."""

import heapq
from collections.abc import Sequence
from itertools import count

import numpy as np

from .drawing import filled_area

MAPS = (2, 8)  # of a class, least and most
LARGEST = (0.2, 0.9)  # a map's larger singular value
FLATTEST = 0.15  # the smaller one, as a share of the larger
AREAS = (0.15, 0.65)  # of a class's shape without variation, as a share of its bounding square
VARIATION = 0.1  # of singular values as a share, of angles in radians, of shifts in half-widths
MOST = 0.95  # singular value of a varied map
EVENNESS = 0.3  # how much of the points is dealt out evenly, not by the maps' areas


class IteratedMaps:
    """The attractor of 2 to 8 affine maps x -> A x + b with singular values below 1.

    It is expanded without chance: all words of maps that are about equally likely, applied to the same words' images
    of the attractor's mean. With K words that makes K x K points by one matrix product.

    Args:
        rng: Draws the parameters of the class; shapes that are too small, too full or too thin are drawn again.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.words: dict[int, Words] = {}
        while True:
            self._draw(rng)
            area, aspect = filled_area(self._expand(self._maps(self.angles, self.values, self.shifts), 64))
            if AREAS[0] <= area <= AREAS[1] and aspect > 0.25:
                return

    def points(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """The points (2, N) of an instance, in float32; about four for each pixel of an image of ``size``."""
        # One draw for all parameters: (N, 6) from -1 to 1
        varied = VARIATION * (2 * rng.random((len(self.values), 6)) - 1)
        values = np.minimum(self.values * (1 + varied[:, 2:4]), MOST)
        maps = self._maps(self.angles + varied[:, :2], values, self.shifts + varied[:, 4:])
        return self._expand(maps, 2 * size)

    def _draw(self, rng: np.random.Generator) -> None:
        number = int(rng.integers(MAPS[0], MAPS[1] + 1))
        self.angles = rng.uniform(-np.pi, np.pi, (number, 2))
        largest = rng.uniform(*LARGEST, number)
        smallest = largest * rng.uniform(FLATTEST, 1, number)
        self.values = np.stack([largest, smallest], 1)
        self.mirrored = rng.choice([-1.0, 1.0], number)
        self.shifts = rng.uniform(-1, 1, (number, 2))
        areas = largest * smallest
        self.shares = EVENNESS / number + (1 - EVENNESS) * areas / areas.sum()
        self.words.clear()

    def _maps(self, angles: np.ndarray, values: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Rotation x singular values x rotation, with the shift, as matrices (N, 3, 3)."""
        cos, sin = np.cos(angles), np.sin(angles)
        (c, d), (s, t) = cos.T, sin.T
        large, small = values[:, 0], values[:, 1] * self.mirrored
        maps = np.zeros((len(values), 3, 3), np.float32)
        maps[:, 0, 0] = c * large * d - s * small * t
        maps[:, 0, 1] = -c * large * t - s * small * d
        maps[:, 1, 0] = s * large * d + c * small * t
        maps[:, 1, 1] = -s * large * t + c * small * d
        maps[:, :2, 2] = shifts
        maps[:, 2, 2] = 1
        return maps

    def _expand(self, maps: np.ndarray, number: int) -> np.ndarray:
        if number not in self.words:
            self.words[number] = Words(self.shares, number)
        # (K, 3, 3)
        words = self.words[number].products(maps)
        starts = words[:, :2] @ self._mean(maps)  # (K, 2)
        points = np.empty((2, len(words), len(words)), np.float32)
        for axis in range(2):
            np.matmul(words[:, axis, :2], starts.T, out=points[axis])
            points[axis] += words[:, axis, 2:]
        # (2, K, K) -> (2, K x K)
        return points.reshape(2, -1)

    def _mean(self, maps: np.ndarray) -> np.ndarray:
        """The mean of the attractor, as (x, y, 1): what the mean of all maps leaves where it is."""
        ((a, b, x), (c, d, y), _) = np.tensordot(self.shares, maps, 1).tolist()
        determinant = (1 - a) * (1 - d) - b * c
        mean = ((1 - d) * x + b * y) / determinant, (c * x + (1 - a) * y) / determinant, 1
        return np.array(mean, np.float32)


class Words:
    """About equally likely sequences of maps, as a tree whose inner nodes have all maps as children.

    Args:
        shares: How likely each map is.
        number: How many words at least.
    """

    def __init__(self, shares: Sequence[float], number: int) -> None:
        ids = count()
        nodes = [(0, 0, 0)]  # depth, parent, map
        heap = [(-1.0, next(ids))]
        while len(heap) < number:
            likelihood, node = heapq.heappop(heap)
            for i, share in enumerate(shares):
                nodes.append((nodes[node][0] + 1, node, i))
                heapq.heappush(heap, (likelihood * share, next(ids)))
        # By depth, so that each level is one slice and comes after its parents
        order = sorted(range(len(nodes)), key=lambda node: nodes[node][0])
        place = {node: i for i, node in enumerate(order)}
        depths = np.array([nodes[node][0] for node in order])
        self.parents = np.array([place[nodes[node][1]] for node in order])
        self.maps = np.array([nodes[node][2] for node in order])
        ends = np.searchsorted(depths, np.arange(depths[-1] + 2))
        self.levels = [slice(low, high) for low, high in zip(ends[1:], ends[2:])]
        self.leaves = np.array(sorted(place[node] for _, node in heap))

    def products(self, maps: np.ndarray) -> np.ndarray:
        """The matrices (K, 3, 3) of all words, from those of the maps (N, 3, 3)."""
        found = np.empty((len(self.parents), 3, 3), np.float32)
        found[0] = np.eye(3)
        for level in self.levels:
            found[level] = found[self.parents[level]] @ maps[self.maps[level]]
        return found[self.leaves]
