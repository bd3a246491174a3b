"""Objects and human figures as lists of coloured polygons.

An object is drawn in its own coordinates: x to the right, y down, its longest side about 1,
centred on the origin. ``OBJECTS`` maps each category to its function; the functions draw their
proportions from a random generator, so that no two cars are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Color = tuple[int, int, int]  # blue, green, red, as OpenCV has them
Point = tuple[float, float]

# COCO's joints, in COCO's order, and the pairs (counted from 1) that its skeleton connects.
JOINTS = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder', 'left_elbow',
    'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
)  # fmt: skip
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip

DARK: Color = (40, 36, 34)
LIGHT: Color = (226, 230, 232)


@dataclass
class Drawing:
    """Polygons (K, 2) with their colours, from back to front; a figure has joints, too.

    ``joints`` is (17, 2); ``shown`` (17,) says which of them this view of the figure shows.
    """

    parts: list[tuple[np.ndarray, Color]] = field(default_factory=list)
    joints: np.ndarray | None = None
    shown: np.ndarray | None = None

    def add(self, polygon: np.ndarray, color: Color) -> None:
        self.parts.append((np.asarray(polygon, dtype=float), color))


def random_color(rng: np.random.Generator) -> Color:
    """Any colour but the extremes, so that shading stays visible."""
    return tuple(int(c) for c in rng.integers(35, 225, 3))


def shade(color: Color, factor: float) -> Color:
    return tuple(int(min(255, c * factor)) for c in color)


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def limb(start: Point, end: Point, width: float, end_width: float) -> np.ndarray:
    """A strip from one point to another with round ends."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    along = end - start
    turn = np.arctan2(along[1], along[0])
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, 8) + turn
    around = np.stack([np.cos(half), np.sin(half)], 1)
    return np.concatenate([start + around * width / 2, end - around * end_width / 2])


def ball(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color, patch = random_color(rng), random_color(rng)
    drawing.add(ellipse(0, 0, 0.5, 0.5), color)
    if rng.random() < 0.5:  # patches of a football
        turn = rng.uniform(0, 2 * np.pi)
        spots = [(0.0, 0.0)] + [
            (0.33 * np.cos(turn + a), 0.33 * np.sin(turn + a)) for a in 2 * np.pi * np.arange(5) / 5
        ]
        for x, y in spots:
            angle = turn + 2 * np.pi * np.arange(5) / 5
            drawing.add(np.stack([x + 0.12 * np.cos(angle), y + 0.12 * np.sin(angle)], 1), patch)
    else:  # curved stripes of a beach ball or basketball
        for bend in (-0.28, 0.0, 0.28):
            y = np.linspace(-0.46, 0.46, 14)
            x = bend * np.sqrt(np.maximum(0, 1 - (y / 0.5) ** 2))
            drawing.add(np.concatenate([np.stack([x - 0.035, y], 1), np.stack([x + 0.035, y], 1)[::-1]]), patch)
    return drawing


def wheel(drawing: Drawing, x: float, y: float, radius: float) -> None:
    drawing.add(ellipse(x, y, radius, radius), DARK)
    drawing.add(ellipse(x, y, radius * 0.45, radius * 0.45), (150, 150, 150))


def car(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color = random_color(rng)
    glass = shade(LIGHT, rng.uniform(0.6, 1.0))
    roof = rng.uniform(-0.26, -0.18)
    front, back = rng.uniform(-0.34, -0.22), rng.uniform(0.22, 0.42)
    top = [(front + 0.14, roof), (back - 0.1, roof), (back, -0.02), (front - 0.04, -0.02)]
    drawing.add(top, color)
    drawing.add(
        [(-0.5, 0.0), (-0.46, -0.04), (0.46, -0.04), (0.5, 0.02), (0.5, 0.15), (-0.5, 0.15)], shade(color, 0.92)
    )
    middle = (front + back) / 2
    drawing.add(
        [(front + 0.15, roof + 0.035), (middle - 0.02, roof + 0.035), (middle - 0.02, -0.04), (front + 0.03, -0.04)],
        glass,
    )
    drawing.add(
        [(middle + 0.02, roof + 0.035), (back - 0.11, roof + 0.035), (back - 0.04, -0.04), (middle + 0.02, -0.04)],
        glass,
    )
    drawing.add(box(-0.5, 0.02, -0.46, 0.07), (90, 220, 250))
    radius = rng.uniform(0.085, 0.11)
    wheel(drawing, rng.uniform(-0.34, -0.26), 0.15, radius)
    wheel(drawing, rng.uniform(0.26, 0.34), 0.15, radius)
    return drawing


def bus(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color = random_color(rng)
    height = rng.uniform(0.2, 0.27)
    drawing.add(box(-0.5, -height, 0.5, 0.19), color)
    drawing.add(box(-0.5, 0.06, 0.5, 0.1), random_color(rng))
    glass = shade(LIGHT, rng.uniform(0.6, 1.0))
    count = int(rng.integers(4, 7))
    edges = np.linspace(-0.46, 0.36, count + 1)
    for left, right in zip(edges, edges[1:]):
        drawing.add(box(left, -height + 0.05, right - 0.025, -0.02), glass)
    drawing.add(box(0.37, -height + 0.05, 0.47, 0.17), shade(glass, 0.8))
    for x in (-0.32, 0.22):
        wheel(drawing, x, 0.19, 0.075)
    return drawing


def boat(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    mast = rng.uniform(-0.08, 0.08)
    drawing.add(box(mast - 0.012, -0.5, mast + 0.012, 0.25), (60, 90, 120))
    sail = shade(LIGHT, 1.0) if rng.random() < 0.4 else random_color(rng)
    drawing.add([(mast + 0.025, -0.46), (mast + 0.025, 0.16), (rng.uniform(0.28, 0.4), 0.16)], sail)
    drawing.add([(mast - 0.025, -0.38), (mast - 0.025, 0.16), (rng.uniform(-0.36, -0.24), 0.16)], shade(sail, 0.85))
    hull = random_color(rng)
    drawing.add([(-0.45, 0.22), (0.5, 0.2), (0.33, 0.4), (-0.34, 0.4)], hull)
    drawing.add([(-0.44, 0.235), (0.485, 0.22), (0.45, 0.265), (-0.42, 0.28)], shade(hull, 0.65))
    return drawing


def airplane(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color = shade(LIGHT, rng.uniform(0.75, 1.0)) if rng.random() < 0.4 else random_color(rng)
    accent = random_color(rng)
    drawing.add([(-0.02, 0.0), (0.1, 0.0), (0.28, -0.3), (0.2, -0.3)], shade(color, 0.7))  # far wing
    drawing.add([(0.32, -0.03), (0.42, -0.24), (0.5, -0.24), (0.47, 0.0)], accent)  # fin
    nose, tail = (-0.43, 0.0), (0.46, -0.02)
    drawing.add(limb(nose, tail, 0.14, 0.07), color)
    for x in np.linspace(-0.3, 0.26, 8):
        drawing.add(ellipse(x, -0.02, 0.017, 0.02), DARK)
    drawing.add([(-0.08, 0.03), (0.1, 0.03), (0.34, 0.32), (0.22, 0.32)], shade(color, 0.8))  # near wing
    drawing.add([(0.34, 0.0), (0.45, 0.0), (0.5, 0.1), (0.43, 0.1)], shade(accent, 0.8))
    return drawing


def traffic_light(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    drawing.add(box(-0.025, 0.1, 0.025, 0.5), (90, 90, 90))
    half = rng.uniform(0.11, 0.14)
    drawing.add(box(-half, -0.5, half, 0.16), random_color(rng) if rng.random() < 0.5 else DARK)
    lamps = [(50, 50, 215), (40, 200, 235), (80, 190, 60)]
    lit = int(rng.integers(3))
    for i, (y, lamp) in enumerate(zip((-0.38, -0.17, 0.04), lamps)):
        drawing.add(ellipse(0, y, 0.082, 0.082), lamp if i == lit else shade(lamp, 0.4))
    return drawing


def bottle(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color = random_color(rng)
    half, neck, shoulder = rng.uniform(0.11, 0.16), rng.uniform(0.04, 0.055), rng.uniform(-0.22, -0.1)
    side = [(neck, -0.46), (neck, shoulder - 0.09), (half, shoulder + 0.04), (half, 0.48), (half - 0.02, 0.5)]
    drawing.add(side + [(-x, y) for x, y in side[::-1]], color)
    drawing.add(box(-neck - 0.012, -0.5, neck + 0.012, -0.44), shade(color, 0.5))
    drawing.add(box(-half, rng.uniform(0.02, 0.1), half, rng.uniform(0.26, 0.36)), random_color(rng))
    drawing.add(box(-half + 0.02, shoulder + 0.05, -half + 0.045, 0.45), shade(color, 1.5))
    return drawing


def vase(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    color = random_color(rng)
    y = np.linspace(-0.5, 0.5, 24)
    belly, mouth = rng.uniform(0.26, 0.34), rng.uniform(0.13, 0.2)
    centre = rng.uniform(-0.05, 0.15)
    x = 0.11 + (belly - 0.11) * np.exp(-(((y - centre) / 0.24) ** 2))
    x = np.maximum(x, mouth * np.exp(-(((y + 0.5) / 0.09) ** 2)))
    x = np.maximum(x, 0.16 * np.exp(-(((y - 0.5) / 0.06) ** 2)))

    def band(low: float, high: float) -> np.ndarray:
        chosen = (y >= low) & (y <= high)
        return np.concatenate([np.stack([x, y], 1)[chosen], np.stack([-x, y], 1)[chosen][::-1]])

    drawing.add(band(-0.5, 0.5), color)
    drawing.add(band(centre - 0.1, centre + 0.1), random_color(rng))
    drawing.add(band(centre - 0.03, centre + 0.03), shade(color, 1.25))
    return drawing


def clock(rng: np.random.Generator) -> Drawing:
    drawing = Drawing()
    drawing.add(ellipse(0, 0, 0.5, 0.5), random_color(rng))
    face = shade(LIGHT, rng.uniform(0.85, 1.0))
    drawing.add(ellipse(0, 0, 0.41, 0.41), face)
    for angle in np.pi * np.arange(12) / 6:
        way = np.array([np.cos(angle), np.sin(angle)])
        drawing.add(limb(way * 0.33, way * 0.38, 0.03, 0.03), DARK)
    for length, width in ((0.2, 0.05), (0.31, 0.03)):
        angle = rng.uniform(0, 2 * np.pi)
        drawing.add(limb((0, 0), (length * np.cos(angle), length * np.sin(angle)), width, width), DARK)
    return drawing


def person(rng: np.random.Generator) -> Drawing:
    """A figure seen from the front or, one in five, from behind; its left is on our right from the front."""
    from_behind = rng.random() < 0.2
    side = -1 if from_behind else 1
    joints = np.zeros((17, 2))

    def swing(start: np.ndarray, length: float, angle: float) -> np.ndarray:
        """The end of a limb that hangs down at angle 0 and points to our right at 90 degrees."""
        return start + length * np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])

    lean = rng.normal(0, 6)
    hip = np.array([0.0, 0.04])
    neck = swing(hip, -0.3, -lean)
    wide = rng.uniform(0.9, 1.15)
    across = swing(np.zeros(2), 1.0, 90 - lean)
    for k, sign in enumerate((side, -side)):  # left, then right
        joints[5 + k] = neck + across * 0.095 * wide * sign + (0, 0.02)
        joints[11 + k] = hip + across * 0.06 * wide * sign
        arm = rng.choice([rng.uniform(5, 40), rng.uniform(40, 110), rng.uniform(110, 165)], p=[0.5, 0.3, 0.2])
        joints[7 + k] = swing(joints[5 + k], 0.145, sign * arm)
        joints[9 + k] = swing(joints[7 + k], 0.135, sign * (arm + rng.uniform(-70, 50)))
        leg = rng.choice([rng.uniform(0, 14), rng.uniform(10, 50)], p=[0.6, 0.4])
        joints[13 + k] = swing(joints[11 + k], 0.215, sign * leg)
        joints[15 + k] = swing(joints[13 + k], 0.215, sign * (leg - rng.uniform(0, 40)))
    head = swing(neck, -0.105, -lean + rng.normal(0, 8))
    look = 0 if from_behind else rng.uniform(-0.018, 0.018)
    joints[0] = head + (look * 1.3, 0.012)
    for k, sign in enumerate((side, -side)):
        joints[1 + k] = head + (sign * 0.026 + look, -0.014)
        joints[3 + k] = head + (sign * 0.06 + look * 0.3, 0.0)

    skin = shade((150, 185, 225), rng.uniform(0.35, 1.05))
    hair = shade((60, 90, 130), rng.uniform(0.15, 1.3))
    shirt, trousers, shoes = random_color(rng), random_color(rng), shade(random_color(rng), 0.5)
    sleeves, legs = (shirt if rng.random() < 0.5 else skin), (trousers if rng.random() < 0.7 else skin)
    drawing = Drawing(joints=joints, shown=np.ones(17, dtype=bool))
    for k in (0, 1):
        drawing.add(limb(joints[13 + k], joints[15 + k], 0.06, 0.045), legs)
        drawing.add(limb(joints[11 + k], joints[13 + k], 0.085, 0.065), trousers)
        drawing.add(ellipse(*(joints[15 + k] + (0, 0.015)), 0.04, 0.025), shoes)
    left_shoulder, right_shoulder, left_hip, right_hip = joints[[5, 6, 11, 12]]
    outward = across * 0.03 * side
    torso = [left_shoulder + outward, right_shoulder - outward, right_hip - outward, left_hip + outward]
    drawing.add(limb(neck, head, 0.05, 0.05), skin)
    drawing.add(torso, shirt)
    for k in (0, 1):
        drawing.add(limb(joints[7 + k], joints[9 + k], 0.045, 0.035), sleeves)
        drawing.add(limb(joints[5 + k], joints[7 + k], 0.06, 0.05), shade(shirt, 0.85))
        drawing.add(ellipse(*joints[9 + k], 0.024, 0.024), skin)
        drawing.add(ellipse(*joints[3 + k], 0.014, 0.02), skin)
    drawing.add(ellipse(*(head + (0, -0.012)), 0.062, 0.076), hair)
    if from_behind:
        drawing.shown[:3] = False
    else:
        drawing.add(ellipse(*(head + (look * 0.5, 0.01)), 0.054, 0.062), skin)
        for k in (0, 1):
            drawing.add(ellipse(*joints[1 + k], 0.011, 0.011), DARK)
        drawing.add(ellipse(*joints[0], 0.009, 0.013), shade(skin, 0.7))
        drawing.add(limb(head + (look - 0.018, 0.04), head + (look + 0.018, 0.04), 0.008, 0.008), (70, 60, 150))
    return drawing


def clutter(rng: np.random.Generator) -> Drawing:
    """Something of no category: a smooth blob or a jagged star."""
    count = int(rng.integers(5, 12))
    angle = 2 * np.pi * np.arange(count) / count
    radius = rng.uniform(0.22, 0.5, count)
    drawing = Drawing()
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    drawing.add(outline, random_color(rng))
    drawing.add(outline * 0.5, random_color(rng))
    return drawing


OBJECTS: dict[str, Callable[[np.random.Generator], Drawing]] = {
    'person': person,
    'car': car,
    'bus': bus,
    'airplane': airplane,
    'boat': boat,
    'traffic light': traffic_light,
    'ball': ball,
    'bottle': bottle,
    'vase': vase,
    'clock': clock,
}
