"""The body of our own: a smooth skin around capsules, made by code.

Points are where joints are, and where head, hands and feet end. Capsules are joined smoothly to a solid, and the skin
is its surface, found on a grid. Each vertex follows the bones that it is near. Each shape parameter moves the
points and widens the bones; the skin goes along.
"""

import functools

import numpy as np
from mmengine.registry import MODELS
from scipy.sparse import csr_array

from .body import Body, Tables
from .skeleton import INDEX, JOINTS, SHAPES

CELL = 0.036  # of the grid, in metres
SMOOTH = 0.015  # how far, in metres, capsules run into one another
STIFF = 15.0  # how soon, near a joint, the skin follows one bone alone

# Metres, of the left side and the middle: x to the body's left, y up, z to its front; the pelvis is the origin.
LEFT = {
    'pelvis': (0.0, 0.0, 0.0), 'hip': (0.085, -0.06, 0.0), 'knee': (0.1, -0.49, 0.005), 'ankle': (0.105, -0.9, -0.03),
    'foot': (0.115, -0.96, 0.09), 'toes': (0.12, -0.965, 0.16), 'spine1': (0.0, 0.11, -0.01),
    'spine2': (0.0, 0.23, -0.01), 'spine3': (0.0, 0.33, -0.005), 'neck': (0.0, 0.49, -0.02), 'head': (0.0, 0.59, 0.0),
    'crown': (0.0, 0.74, 0.01), 'collar': (0.06, 0.42, -0.015), 'shoulder': (0.175, 0.435, -0.02),
    'elbow': (0.44, 0.43, -0.03), 'wrist': (0.69, 0.43, -0.02), 'hand': (0.77, 0.428, -0.01),
    'fingers': (0.86, 0.425, 0.0),
}  # fmt: skip

# Bones: the joint that turns them, where they end, and a radius; several may hang on one joint.
BONES = (
    ('pelvis', 'spine1', 0.12), ('pelvis', 'hip', 0.11), ('hip', 'knee', 0.085), ('knee', 'ankle', 0.06),
    ('ankle', 'foot', 0.05), ('foot', 'toes', 0.04), ('spine1', 'spine2', 0.12), ('spine2', 'spine3', 0.13),
    ('spine3', 'neck', 0.11), ('spine3', 'collar', 0.11), ('neck', 'head', 0.06), ('head', 'crown', 0.09),
    ('collar', 'shoulder', 0.08), ('shoulder', 'elbow', 0.055), ('elbow', 'wrist', 0.045), ('wrist', 'hand', 0.04),
    ('hand', 'fingers', 0.035),
)  # fmt: skip
SIDED = {'hip', 'knee', 'ankle', 'foot', 'toes', 'collar', 'shoulder', 'elbow', 'wrist', 'hand', 'fingers'}

# Of the solid, left side: from where, to where, and the radii there.
CAPSULES = (
    ((0.04, -0.05, -0.02), (0.09, -0.07, -0.02), 0.11, 0.105),  # the seat
    ((0.0, 0.05, 0.0), (0.05, 0.05, 0.0), 0.1, 0.1),
    ((0.0, 0.13, 0.0), (0.045, 0.13, 0.0), 0.095, 0.09),  # the waist
    ((0.0, 0.24, 0.0), (0.06, 0.26, 0.0), 0.1, 0.1),
    ((0.0, 0.36, 0.0), (0.09, 0.36, -0.005), 0.1, 0.085),  # the chest
    ((0.03, 0.43, -0.02), (0.16, 0.43, -0.02), 0.065, 0.06),
    ((0.0, 0.42, -0.02), (0.0, 0.56, 0.0), 0.058, 0.052),  # the neck
    ((0.0, 0.61, 0.025), (0.0, 0.67, 0.005), 0.075, 0.098),
    ((0.0, 0.6, 0.09), (0.0, 0.615, 0.115), 0.015, 0.014),  # the nose
    ((0.09, -0.08, 0.0), (0.1, -0.45, 0.012), 0.088, 0.056),
    ((0.1, -0.47, 0.005), (0.102, -0.6, -0.015), 0.054, 0.056),  # the calf
    ((0.102, -0.6, -0.015), (0.105, -0.9, -0.03), 0.056, 0.038),
    ((0.105, -0.93, -0.05), (0.118, -0.955, 0.1), 0.042, 0.038),
    ((0.118, -0.955, 0.1), (0.12, -0.96, 0.14), 0.038, 0.032),
    ((0.17, 0.43, -0.02), (0.44, 0.43, -0.03), 0.056, 0.042),
    ((0.44, 0.43, -0.03), (0.5, 0.43, -0.028), 0.042, 0.044),
    ((0.5, 0.43, -0.028), (0.69, 0.43, -0.02), 0.044, 0.031),
    ((0.71, 0.428, -0.02), (0.79, 0.427, -0.005), 0.036, 0.038),
    ((0.79, 0.427, -0.005), (0.85, 0.425, 0.0), 0.034, 0.024),
    ((0.72, 0.427, 0.0), (0.78, 0.425, 0.04), 0.022, 0.018),  # the thumb
)
LANDMARKS = ((0.0, 0.61, 0.13), (0.033, 0.645, 0.09), (-0.033, 0.645, 0.09), (0.1, 0.63, 0.0), (-0.1, 0.63, 0.0))


def named_points() -> dict[str, np.ndarray]:
    """All points by name, both sides."""
    points = {}
    for name, (x, y, z) in LEFT.items():
        for side, sign in (('left_', 1), ('right_', -1)) if name in SIDED else (('', 1),):
            points[side + name] = np.array([sign * x, y, z])
    return points


def named_bones() -> list[tuple[str, str, float]]:
    """All bones, both sides: names of the points where they begin and end, and their radii."""
    bones = []
    for start, end, radius in BONES:
        for side in ('left_', 'right_') if end in SIDED else ('',):
            bones.append((side + start if start in SIDED else start, side + end, radius))
    return bones


def along(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How far along a line, from 0 to 1, the place is that is nearest to each of points (N, 3): (N,)."""
    line = end - start
    return np.clip((points - start) @ line / (line @ line), 0, 1)


def depth_inside(points: np.ndarray) -> np.ndarray:
    """How deep points (N, 3) lie in the solid, in metres: (N,), negative outside."""
    total = np.zeros(len(points))
    for start, end, start_radius, end_radius in CAPSULES:
        for sign in (1, -1):
            a, b = (np.array(end_point) * (sign, 1, 1) for end_point in (start, end))
            t = along(points, a, b)
            distance = np.linalg.norm(points - (a + t[:, None] * (b - a)), axis=1)
            depth = start_radius + t * (end_radius - start_radius) - distance
            total += np.exp(np.clip(depth, -0.3, None) / SMOOTH)
    return SMOOTH * np.log(total)


def surface(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a function on a grid is zero, as naive surface nets find it.

    Args:
        values: (X, Y, Z), positive inside.

    Returns:
        Vertices (V, 3) in cells of the grid, one in each cell in which the sign changes, and quadrangles (Q, 4),
        counterclockwise seen from outside.
    """
    inside = values > 0
    cells = np.array(values.shape) - 1
    total, crossings = np.zeros((*cells, 3)), np.zeros(cells)
    quads = []
    for axis in range(3):
        others = [(axis + 1) % 3, (axis + 2) % 3]
        low, high = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        changes = np.moveaxis((low > 0) != (high > 0), 0, axis)
        share = np.moveaxis(low / np.where(low == high, 1, low - high), 0, axis)
        # Each edge of the grid is one of four cells.
        for shift in np.ndindex(2, 2):
            offset = np.zeros(3)
            offset[others] = shift
            window = [slice(None)] * 3
            for other, step in zip(others, shift):
                window[other] = slice(step, step + cells[other])
            here = changes[tuple(window)]
            total += np.where(here[..., None], offset, 0)
            total[..., axis] += np.where(here, share[tuple(window)], 0)
            crossings += here
        # Around an edge that crosses the surface the four cells' vertices make a quadrangle.
        edges = np.argwhere(changes)
        edges = edges[((edges[:, others] > 0) & (edges[:, others] < cells[others])).all(1)]
        corners = []
        for shift in ((1, 1), (0, 1), (0, 0), (1, 0)):
            cell = edges.copy()
            cell[:, others] -= shift
            corners.append(np.ravel_multi_index(cell.T, cells))
        around = np.stack(corners, axis=1)
        turned = ~inside[tuple(edges.T)]  # the outside comes first along the axis
        around[turned] = around[turned, ::-1]
        quads.append(around)
    used = np.flatnonzero(crossings)
    number = np.full(crossings.size, -1)
    number[used] = np.arange(len(used))
    where = np.stack(np.unravel_index(used, cells), axis=1)
    vertices = where + total.reshape(-1, 3)[used] / crossings.reshape(-1)[used, None]
    return vertices, number[np.concatenate(quads)]


def shape_moves(points: dict[str, np.ndarray]) -> list[tuple[dict[str, np.ndarray], dict[str, float]]]:
    """What a standard deviation of each shape parameter does: how points move, and by what part bones grow wider."""
    torso = ('pelvis', 'spine1', 'spine2', 'spine3')
    legs, arms = ('hip', 'knee', 'ankle', 'foot'), ('collar', 'shoulder', 'elbow', 'wrist', 'hand')
    all_bones = {joint: 1.0 for joint in (*torso, *legs, *arms, 'neck', 'head')}

    def part(names: tuple[str, ...], by: float) -> dict[str, float]:
        return dict.fromkeys(names, by)

    def moved(move) -> dict[str, np.ndarray]:
        return {name: np.asarray(move(name, point), float) for name, point in points.items()}

    still = moved(lambda name, p: np.zeros(3))
    hip, shoulder = points['left_hip'], points['left_shoulder']
    is_leg = {f'{side}_{name}' for side in ('left', 'right') for name in (*legs, 'toes')}
    is_arm = {f'{side}_{name}' for side in ('left', 'right') for name in (*arms, 'fingers')}
    outward = np.array([1.0, 0, 0])

    def lift(y: float) -> float:
        return min(max(y, 0), points['neck'][1])

    return [
        (moved(lambda name, p: 0.045 * p), {joint: 0.045 for joint in all_bones}),  # height
        (still, {**part(torso, 0.14), **part(('hip', 'shoulder', 'collar'), 0.1), **part(('knee', 'elbow'), 0.07)}),
        (still, {**part(legs[:2], 0.1), **part(arms[:3], 0.12), **part(('neck', 'spine3'), 0.07)}),  # muscles
        (moved(lambda name, p: (0, 0.05 * (p[1] - hip[1]) if name in is_leg else 0, 0)), {}),  # long legs
        (
            moved(lambda name, p: np.sign(p[0]) * 0.05 * max(abs(p[0]) - shoulder[0], 0) * outward * (name in is_arm)),
            {},
        ),  # long arms
        (moved(lambda name, p: (0, 0.05 * lift(p[1]), 0)), {}),  # a long trunk
        (moved(lambda name, p: np.sign(p[0]) * 0.018 * outward * (name in is_arm and 'collar' not in name)), {}),
        (moved(lambda name, p: np.sign(p[0]) * 0.012 * outward * (name in is_leg)), part(('pelvis', 'hip'), 0.07)),
        (still, part(('spine1', 'spine2'), 0.18)),  # a belly
        (moved(lambda name, p: 0.06 * (p - points['head']) * (name == 'crown')), part(('head',), 0.07)),
    ]


def smoothed(values: np.ndarray, quads: np.ndarray, rounds: int) -> np.ndarray:
    """Values (V, ...) of a mesh's vertices, each several times moved halfway to the mean of its neighbours."""
    flat = values.reshape(len(values), -1)
    edges = np.unique(np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)]), axis=0)  # both ways each
    neighbours = csr_array((np.ones(len(edges)), tuple(edges.T)), shape=(len(values), len(values)))
    neighbours = neighbours / neighbours.sum(axis=1)[:, None]
    for _ in range(rounds):
        flat = (flat + neighbours @ flat) / 2
    return flat.reshape(values.shape)


@functools.cache
def capsule_tables() -> Tables:
    """The tables of the body; they take a moment to compute, once in a process."""
    points, bones = named_points(), named_bones()
    # Half a cell beside the plane of symmetry, so that vertices lie in it.
    steps = [
        np.arange(low / CELL // 1 + 0.5, high / CELL + 1) * CELL
        for low, high in ((-0.9, 0.9), (-1.05, 0.85), (-0.2, 0.2))
    ]
    grid = np.stack(np.meshgrid(*steps, indexing='ij'), axis=-1)
    values = depth_inside(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, quads = surface(values)
    vertices = smoothed(vertices * CELL + [step[0] for step in steps], quads, rounds=2)

    # How near each vertex is to each bone, in that bone's radii: (V, bones)
    places = np.stack([along(vertices, points[start], points[end]) for start, end, _ in bones], axis=1)
    starts, ends = (np.array([points[bone[i]] for bone in bones]) for i in (0, 1))
    axis = starts + places[..., None] * (ends - starts)  # (V, bones, 3)
    radii = np.array([radius for *_, radius in bones])
    nearness = -STIFF * np.linalg.norm(vertices[:, None] - axis, axis=2) / radii
    shares = np.exp(nearness - nearness.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    weights = np.zeros((len(vertices), len(JOINTS)))
    for i, (joint, _, _) in enumerate(bones):
        weights[:, INDEX[joint]] += shares[:, i]

    vertex_shapes, joint_shapes = np.zeros((SHAPES, len(vertices), 3)), np.zeros((SHAPES, len(JOINTS), 3))
    for i, (moves, widths) in enumerate(shape_moves(points)):
        joint_shapes[i] = [moves[name] for name in JOINTS]
        at_start, at_end = (np.array([moves[bone[k]] for bone in bones]) for k in (0, 1))
        wider = np.array([widths.get(start.split('_')[-1], 0.0) for start, _, _ in bones])
        follow = at_start + places[..., None] * (at_end - at_start) + wider[:, None] * (vertices[:, None] - axis)
        vertex_shapes[i] = (shares[..., None] * follow).sum(axis=1)
    # Else the skin would have an edge wherever it begins to follow another bone.
    vertex_shapes = smoothed(vertex_shapes.transpose(1, 0, 2), quads, rounds=8).transpose(1, 0, 2)
    weights = smoothed(weights, quads, rounds=3)
    distances = np.linalg.norm(vertices[:, None] - np.array(LANDMARKS), axis=2)
    return Tables(
        vertices=vertices,
        faces=np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
        weights=weights,
        joints=np.array([points[name] for name in JOINTS]),
        vertex_shapes=vertex_shapes,
        joint_shapes=joint_shapes,
        landmarks=distances.argmin(axis=0),
    )


@MODELS.register_module()
class CapsuleBody(Body):
    """The body of :func:`capsule_tables`."""

    def __init__(self) -> None:
        super().__init__(capsule_tables())
