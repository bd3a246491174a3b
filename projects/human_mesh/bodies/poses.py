"""Poses and shapes at random, within what joints can do."""

import functools

import numpy as np
import torch
from torch import Tensor

from .rotations import matrix_from_6d, matrix_from_axis_angle, matrix_to_6d
from .skeleton import INDEX, JOINTS, SHAPES

# Degrees of rotation about x, y and z of left joints and those in the middle, out of the T pose: least, mode, most.
# Each is drawn from a triangle with these corners. A body's x is its left, y up, z its front.
RANGES = {
    'spine1': ((-8, 4, 30), (-15, 0, 15), (-10, 0, 10)),
    'spine2': ((-6, 2, 20), (-15, 0, 15), (-10, 0, 10)),
    'spine3': ((-6, 2, 15), (-12, 0, 12), (-8, 0, 8)),
    'neck': ((-15, 5, 25), (-25, 0, 25), (-10, 0, 10)),
    'head': ((-15, 0, 20), (-25, 0, 25), (-10, 0, 10)),
    'collar': ((-5, 0, 5), (-10, -2, 10), (-8, 0, 15)),
    'shoulder': ((-40, 0, 40), (-80, -15, 30), (-80, -65, 60)),  # the arm twists; swings forward; hangs
    'elbow': ((-25, 0, 25), (-140, -15, 0), (-5, 0, 5)),
    'wrist': ((-20, 0, 20), (-15, 0, 15), (-30, 0, 30)),
    'hip': ((-95, -6, 25), (-15, 5, 35), (-12, 5, 40)),  # the leg swings forward; turns out; spreads
    'knee': ((0, 10, 120), (-5, 0, 5), (-3, 0, 3)),
    'ankle': ((-20, 0, 30), (-10, 0, 15), (-8, 0, 8)),
}
LEAN = ((-20, 0, 20), (-180, 0, 180), (-15, 0, 15))  # of the whole body; about y it turns round


@functools.cache
def _corners() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all joints: which move, the triangles' corners (3, moving, 3), and the signs (moving, 3) of their side."""
    ranges = {name: RANGES.get(name.removeprefix('left_').removeprefix('right_')) for name in JOINTS}
    moving = [name for name in JOINTS if ranges[name]]
    # In a mirror that exchanges left and right a rotation about x stays, others turn round.
    signs = [(1, -1, -1) if name.startswith('right_') else (1, 1, 1) for name in moving]
    corners = np.array([ranges[name] for name in moving], float)
    return np.array([INDEX[name] for name in moving]), corners.transpose(2, 0, 1), np.array(signs)


def draw_pose(rng: np.random.Generator) -> Tensor:
    """Rotations (24, 3, 3) of a body before the camera."""
    moving, corners, signs = _corners()
    angles = np.zeros((len(JOINTS), 3))
    angles[moving] = rng.triangular(*corners) * signs
    lean, turn, tilt = rng.triangular(*np.array(LEAN, float).T)
    # A body has y up and looks along z; the camera has y down and looks along z, so it is turned by 180 degrees.
    parts = np.radians([(180, 0, 0), (0, 0, tilt), (lean, 0, 0), (0, turn, 0)])
    rotations = matrix_from_axis_angle(torch.from_numpy(np.concatenate([np.radians(angles), parts])).float())
    upright, tilted, leaning, turned = rotations[len(JOINTS) :]
    rotations[INDEX['pelvis']] = upright @ tilted @ leaning @ turned
    return rotations[: len(JOINTS)]


def draw_shape(rng: np.random.Generator) -> Tensor:
    """Shape parameters (10,) of a normal distribution, cut at 2.5 standard deviations."""
    return torch.from_numpy(rng.normal(size=SHAPES).clip(-2.5, 2.5)).float()


@functools.cache
def mean_pose(count: int = 500) -> Tensor:
    """The mean of drawn poses, made rotations again: (24, 3, 3). It faces the camera."""
    rng = np.random.default_rng(0)
    drawn = torch.stack([matrix_to_6d(draw_pose(rng)) for _ in range(count)])
    return matrix_from_6d(drawn.mean(dim=0))
