"""Backgrounds: an upper and a lower region, and what stands where they meet."""

import cv2
import numpy as np

# A usual colour (blue, green, red) of each region. How far an image strays from it is drawn at
# random, so that colour hints at the region and texture tells it.
REGIONS: dict[str, tuple[int, int, int]] = {
    'sky': (225, 180, 135),
    'building': (120, 140, 165),
    'mountain': (125, 120, 115),
    'tree': (60, 110, 70),
    'grass': (70, 150, 110),
    'road': (115, 115, 115),
    'sea': (165, 130, 80),
    'sand': (140, 185, 210),
}


def noise(rng: np.random.Generator, height: int, width: int, cell: tuple[float, float]) -> np.ndarray:
    """Smooth noise in about [-1, 1] whose bumps are ``cell`` = (rows, columns) pixels large."""
    small = rng.uniform(-1, 1, (max(2, round(height / cell[0]) + 1), max(2, round(width / cell[1]) + 1)))
    return cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def texture(rng: np.random.Generator, region: str, height: int, width: int) -> np.ndarray:
    """Brightness pattern of a region, (height, width) in about [-1, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    scale = rng.uniform(0.8, 1.3)
    if region == 'sky':
        clouds = np.clip(noise(rng, height, width, (14 * scale, 36 * scale)) - 0.1, 0, 1)
        return clouds * 1.3 + 0.3 * (y / height - 0.5)
    if region == 'sea':
        return noise(rng, height, width, (2.5 * scale, 18 * scale)) * 0.8
    if region == 'grass':
        return noise(rng, height, width, (7 * scale, 1.5)) * 0.8 + 0.2 * noise(rng, height, width, (20, 20))
    if region == 'sand':
        return noise(rng, height, width, (1.2, 1.2)) * 0.35 + 0.35 * noise(rng, height, width, (9 * scale, 30 * scale))
    if region == 'road':
        dashes = ((x / (16 * scale)).astype(int) % 2 == 0) & (np.abs(y - height * rng.uniform(0.4, 0.6)) < 2)
        return 0.12 * noise(rng, height, width, (1.5, 1.5)) + 1.4 * dashes
    if region == 'tree':
        return noise(rng, height, width, (5 * scale, 5 * scale)) + 0.4 * noise(rng, height, width, (2, 2))
    if region == 'building':
        rows, columns = 13 * scale, 10 * scale
        windows = ((y % rows) > 0.45 * rows) & ((x % columns) > 0.45 * columns)
        return np.where(windows, -0.9, 0.25) + 0.1 * noise(rng, height, width, (2, 2))
    facets = np.abs(((x + 0.8 * y) / (15 * scale)) % 2 - 1) + np.abs(((x - 0.9 * y) / (22 * scale)) % 2 - 1)
    return (facets - 1) * 0.9 + 0.15 * noise(rng, height, width, (2, 2))  # mountain


def paint_region(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, region: str) -> None:
    usual = np.array(REGIONS[region], np.float32)
    color = usual + (rng.uniform(30, 225, 3) - usual) * rng.beta(1.2, 1.6)
    pattern = texture(rng, region, *mask.shape)[mask, None] * rng.uniform(30, 50)
    image[mask] = np.clip(color + pattern, 0, 255)


def make_background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray, list]:
    """A background.

    Returns:
        Image (height, width, 3) of float32, index map (height, width) into the list of regions,
        and that list.
    """
    image = np.zeros((height, width, 3), np.float32)
    index = np.zeros((height, width), np.uint8)
    y = np.mgrid[:height, :width][0]
    horizon = height * rng.uniform(0.3, 0.6) + height * 0.03 * noise(rng, 1, width, (1, width / 2))[0]
    regions = [str(rng.choice(['sky', 'building'], p=[0.7, 0.3])), str(rng.choice(['grass', 'road', 'sea', 'sand']))]
    index[y >= horizon] = 1
    if rng.random() < 0.6:  # on the horizon
        regions.append(str(rng.choice(['mountain', 'tree', 'building'])) if regions[0] == 'sky' else 'tree')
        rise = height * rng.uniform(0.12, 0.3)
        if regions[2] == 'building':
            steps = rng.uniform(0.3, 1.0, max(2, width // 40 + 1))
            top = horizon - rise * np.repeat(steps, -(-width // len(steps)))[:width]
        else:
            bumps = 24 if regions[2] == 'tree' else 60
            top = horizon - rise * (0.65 + 0.45 * noise(rng, 1, width, (1, bumps))[0])
        index[(y >= top) & (y < horizon)] = 2
    for i, region in enumerate(regions):
        paint_region(rng, image, index == i, region)
    return image, index, regions
