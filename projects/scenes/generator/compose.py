"""Scenes: a background, objects that hide one another, and the labels of what is left to see."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from .backgrounds import make_background, noise
from .shapes import OBJECTS, Drawing, clutter

SIZES = (9, 200)  # longest side of an object in pixels; what is seen of it spans a factor of 16
KEYPOINT_SIZE = 44  # figures below this height carry no keypoints, as in COCO
SUBPIXEL = 4  # OpenCV's polygons have corners at 1/16 pixel
TILT = {'ball': 180.0, 'clock': 12.0, 'airplane': 25.0, 'boat': 10.0, 'person': 8.0}  # largest turn in degrees


@dataclass
class Thing:
    """An object in a scene.

    ``mask`` (H, W) is what is seen of it, ``full_area`` the pixels it would have inside the image
    if nothing hid it. ``keypoints`` (17, 3) has x, y and COCO's visibility: 0 not labelled,
    1 hidden, 2 seen; all 0 on figures too small for them.
    """

    category: str
    mask: np.ndarray
    full_area: int
    keypoints: np.ndarray | None = None
    crowd: bool = False


@dataclass
class Scene:
    """An image (H, W, 3) in BGR and its labels.

    ``regions`` names what lies behind the things; ``region_map`` (H, W) gives each pixel's index
    in it. ``unlabelled`` (H, W) marks objects of no category.
    """

    image: np.ndarray
    regions: list[str]
    region_map: np.ndarray
    unlabelled: np.ndarray
    things: list[Thing] = field(default_factory=list)

    def enlarged(self, factor: int) -> 'Scene':
        """The same with ``factor`` times the height and width."""
        if factor == 1:
            return self

        def blow_up(labels: np.ndarray) -> np.ndarray:
            return labels.repeat(factor, 0).repeat(factor, 1)

        scale = np.array([factor, factor, 1.0])
        things = [
            replace(
                thing,
                mask=blow_up(thing.mask),
                full_area=thing.full_area * factor**2,
                keypoints=None if thing.keypoints is None else thing.keypoints * scale,
            )
            for thing in self.things
        ]
        image, regions = enlarged(self.image, factor), blow_up(self.region_map)
        return replace(self, image=image, region_map=regions, unlabelled=blow_up(self.unlabelled), things=things)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image


class Canvas:
    """An image under construction; what is painted later hides what is there."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        image, region_map, regions = make_background(rng, height, width)
        self.scene = Scene(image, regions, region_map, np.zeros((height, width), bool))
        self.wear = 14 * noise(rng, height, width, (6, 6))[..., None]  # no surface is of one colour

    def place(self, drawing: Drawing, center: tuple[float, float], size: float, tilt: float) -> np.ndarray:
        """Matrix (2, 3) from a drawing's coordinates to pixels: size, turn, mirror, proportions."""
        angle = np.radians(self.rng.uniform(-tilt, tilt))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # Figures are not mirrored: their left would become their right.
        mirror = -1 if drawing.joints is None and self.rng.random() < 0.5 else 1
        stretch = np.diag([mirror * self.rng.uniform(0.87, 1.0), self.rng.uniform(0.87, 1.0)])
        return np.concatenate([size * turn @ stretch, np.array(center, float)[:, None]], axis=1)

    def corners(self, polygon: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        pixels = polygon @ matrix[:, :2].T + matrix[:, 2]
        # OpenCV's pixel centres are whole numbers; here they lie at 0.5, as in COCO.
        return np.round((pixels - 0.5) * 2**SUBPIXEL).astype(np.int32)

    def silhouette(self, drawing: Drawing, matrix: np.ndarray) -> np.ndarray:
        mask = np.zeros((self.height, self.width), np.uint8)
        for polygon, _ in drawing.parts:
            cv2.fillPoly(mask, [self.corners(polygon, matrix)], 1, cv2.LINE_8, SUBPIXEL)
        return mask.astype(bool)

    def paint(self, drawing: Drawing, matrix: np.ndarray, mask: np.ndarray) -> None:
        layer = np.zeros((self.height, self.width, 3), np.uint8)
        for polygon, color in drawing.parts:
            cv2.fillPoly(layer, [self.corners(polygon, matrix)], color, cv2.LINE_8, SUBPIXEL)
        self.scene.image[mask] = layer[mask] + self.wear[mask]
        self.scene.unlabelled &= ~mask
        for thing in self.scene.things:
            thing.mask &= ~mask

    def add_clutter(self, size: float) -> None:
        drawing = clutter(self.rng)
        center = self.rng.uniform(0, 1, 2) * (self.width, self.height)
        matrix = self.place(drawing, center, size, 180)
        mask = self.silhouette(drawing, matrix)
        if self.hides_too_much(mask):
            return
        self.paint(drawing, matrix, mask)
        self.scene.unlabelled |= mask

    def hides_too_much(self, mask: np.ndarray) -> bool:
        """Whether less than two fifths of something, or next to nothing, would be left to see."""
        for thing in self.scene.things:
            left = np.count_nonzero(thing.mask & ~mask)
            if left < max(12, 0.4 * thing.full_area):
                return True
        return False

    def add_thing(self, category: str, size: float, margin: float = 0.35) -> bool:
        """Try to find a place for an object; up to ``margin`` of its size may lie outside the image."""
        drawing = OBJECTS[category](self.rng)
        for _ in range(8):
            inset = size * (0.5 - margin)
            low = np.minimum(inset, (self.width / 2, self.height / 2))
            center = self.rng.uniform(low, np.array([self.width, self.height]) - low)
            matrix = self.place(drawing, center, size, TILT.get(category, 6.0))
            mask = self.silhouette(drawing, matrix)
            if np.count_nonzero(mask) >= 20 and not self.hides_too_much(mask):
                break
        else:
            return False
        self.paint(drawing, matrix, mask)
        keypoints = self.keypoints(drawing, matrix, size) if drawing.joints is not None else None
        self.scene.things.append(Thing(category, mask, np.count_nonzero(mask), keypoints))
        return True

    def keypoints(self, drawing: Drawing, matrix: np.ndarray, size: float) -> np.ndarray:
        found = np.zeros((17, 3))
        if size < KEYPOINT_SIZE:
            return found
        pixels = drawing.joints @ matrix[:, :2].T + matrix[:, 2]
        inside = ((pixels >= 0) & (pixels < (self.width, self.height))).all(1) & drawing.shown
        found[inside, :2] = pixels[inside]
        found[inside, 2] = 2
        return found

    def add_crowd(self) -> None:
        """A row of small figures, labelled together."""
        union = np.zeros((self.height, self.width), bool)
        size = self.rng.uniform(20, 34)
        x, y = self.rng.uniform(0.1, 0.4) * self.width, self.rng.uniform(0.3, 0.8) * self.height
        for _ in range(int(self.rng.integers(6, 11))):
            drawing = OBJECTS['person'](self.rng)
            matrix = self.place(drawing, (x, y + self.rng.uniform(-3, 3)), size, 5)
            mask = self.silhouette(drawing, matrix)
            self.paint(drawing, matrix, mask)
            union |= mask
            x += size * self.rng.uniform(0.25, 0.5)
        self.scene.things.append(Thing('person', union, np.count_nonzero(union), crowd=True))

    def finish(self) -> Scene:
        """Light and camera; then what has become of each joint."""
        light = self.rng.uniform(0.75, 1.2) * self.rng.uniform(0.88, 1.12, 3)
        grain = self.rng.normal(0, self.rng.uniform(2, 7), self.scene.image.shape)
        image = cv2.GaussianBlur(self.scene.image, (0, 0), 0.55)  # soft edges, as lenses make them
        self.scene.image = np.clip(image * light + grain, 0, 255).astype(np.uint8)
        for thing in self.scene.things:
            if thing.keypoints is not None:
                for joint in thing.keypoints:
                    if joint[2] and not thing.mask[int(joint[1]), int(joint[0])]:
                        joint[2] = 1
        return self.scene


def make_scene(rng: np.random.Generator, crowd: bool | None = None) -> Scene:
    """Several objects of all sizes before a background.

    Args:
        crowd: Whether a crowd stands in it; by default in one scene of sixteen.
    """
    long, short = rng.uniform(192, 256), rng.uniform(144, 192)
    width, height = (long, short) if rng.random() < 0.65 else (short, long)
    canvas = Canvas(rng, int(height), int(width))
    if crowd or (crowd is None and rng.random() < 1 / 16):
        canvas.add_crowd()
    for _ in range(int(rng.integers(0, 3))):
        canvas.add_clutter(rng.uniform(15, 60))
    names = list(OBJECTS)
    # Three in ten are persons, as in COCO.
    chances = np.array([4.0] + [1.0] * (len(names) - 1))
    wanted = rng.choice(names, size=int(rng.integers(3, 8)), p=chances / chances.sum())
    sizes = SIZES[0] * (SIZES[1] / SIZES[0]) ** rng.beta(1.8, 1.0, len(wanted))
    for category, size in zip(wanted, np.sort(sizes)[::-1]):  # the large ones behind, or nothing else were seen
        canvas.add_thing(str(category), size)
    return canvas.finish()


def make_object(rng: np.random.Generator, category: str) -> Scene:
    """One object, with clutter behind and before it."""
    height, width = (int(side) for side in rng.uniform(72, 128, 2))
    canvas = Canvas(rng, height, width)
    for _ in range(int(rng.integers(0, 3))):
        canvas.add_clutter(rng.uniform(20, 60))
    while not canvas.add_thing(category, min(height, width) * rng.uniform(0.7, 1.05), margin=0.1):
        pass
    if rng.random() < 0.25:
        canvas.add_clutter(rng.uniform(15, 35))
    return canvas.finish()
