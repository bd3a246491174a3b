"""Rotations as a network gives them, six numbers each, and as poses are drawn, three."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def matrix_from_6d(numbers: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) whose first two columns are six numbers (..., 6), made orthonormal by Gram-Schmidt.

    After Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019. The numbers are
    the first column, then the second.
    """
    first = normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:]
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_6d(matrices: Tensor) -> Tensor:
    """The first two columns of matrices (..., 3, 3), one after the other: (..., 6)."""
    return matrices[..., :2].transpose(-1, -2).flatten(-2)


def matrix_from_axis_angle(vectors: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) about vectors (..., 3), by as many radians as these are long."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3)))


def mirrored(matrices: Tensor) -> Tensor:
    """What rotations (..., 3, 3) look like in a mirror that exchanges left and right (x)."""
    signs = matrices.new_tensor([-1.0, 1.0, 1.0])
    return signs[:, None] * matrices * signs
