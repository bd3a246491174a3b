"""From points of a plane to an image: density, colours, background.

Colours are drawn for each instance, in the same way for all classes: they tell nothing about the class.
"""

import math

import cv2
import numpy as np

EXTENTS = (0.6, 1.1)  # of a shape's longer side, as a share of the image's
SHIFT = 0.15  # of its centre from the image's, as a share of its side
CONTRAST = (96, 160)  # between shape and background in each channel, counted around the circle of 256 values
TEXTURE = 40  # by which a colour varies within shape or background
CELLS = (2, 5)  # of that variation along a side
GRID = 32  # cells along a side, for areas


def filled_area(points: np.ndarray) -> tuple[float, float]:
    """Share of the cells of points' bounding square that they fall on, and shorter side by longer side."""
    low = points.min(1, keepdims=True)
    sides = np.ptp(points, axis=1)
    cells = np.minimum((points - low) * (GRID / sides.max()), GRID - 1).astype(np.intp)
    return len(np.unique(cells[0] * GRID + cells[1])) / GRID**2, float(sides.min() / sides.max())


def draw(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """An image (size, size, 3) in uint8 of points (2, N), turned, mirrored, placed and coloured by chance."""
    strength, thickness, *colours = rng.random(8).tolist()
    counts = _count(points, size, rng)
    # Pixels of the mean density are as strong as chance has it, denser ones stronger
    density = max(counts.sum(), 1) / max(np.count_nonzero(counts), 1)
    share = np.minimum(counts.astype(np.float32) * np.float32((0.5 + 1.5 * strength) / density), 1)
    pixels = 1 + int(thickness * (1 + size // 64))  # of a line
    if pixels > 1:
        share = cv2.blur(cv2.dilate(share, np.ones((pixels, pixels))), (pixels, pixels))
    background = 256 * np.array(colours[:3])
    foreground = (background + CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * np.array(colours[3:])) % 256
    return cv2.blendLinear(_texture(foreground, size, rng), _texture(background, size, rng), share, 1 - share)


def _count(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """How many points fall on each pixel, (size, size)."""
    angle, extent, mirrored, x, y = rng.random(5).tolist()
    cos, sin = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)
    sign = -1 if mirrored < 0.5 else 1
    points = np.array([[cos, -sin * sign], [sin, cos * sign]], np.float32) @ points
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    scale = (EXTENTS[0] + (EXTENTS[1] - EXTENTS[0]) * extent) * size / (high - low).max()
    # The canvas has a margin, so that all points fall on it
    margin = size // 4
    side = size + 2 * margin
    centre = side / 2 + SHIFT * size * np.array([[2 * x - 1], [2 * y - 1]], np.float32)
    points *= np.float32(scale)
    points += centre - np.float32(scale) * (low + high) / 2
    columns, rows = points.astype(np.int32)
    counts = np.bincount(rows * side + columns, minlength=side * side)
    return counts.reshape(side, side)[margin:-margin, margin:-margin]


def _texture(colour: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A colour that varies slowly over an image."""
    cells = CELLS[0] + int(rng.random() * (1 + CELLS[1] - CELLS[0]))
    varied = (colour - TEXTURE) + 2 * TEXTURE * rng.random((cells, cells, 3))
    return cv2.resize(varied.clip(0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)
