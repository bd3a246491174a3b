"""A parametric body: pose and shape in, vertices and joints out, by linear blend skinning.

    B bodies   V vertices   F triangles   J = 24 joints   S = 10 shape parameters

What a body is, is in its tables; how it moves is the same for all, and differentiable. A body stands in camera
coordinates, in metres: x to the right of the image, y down, z away from the camera, the pelvis in the origin. Tables
are of a body that stands upright as a T with y up, looking along z; turning it about x by 180 degrees shows it upright
to the camera, from the front.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .skeleton import COCO_JOINTS, JOINTS, LANDMARKS, PARENTS, SHAPES


@dataclass(frozen=True)
class Tables:
    """All that makes a body.

    Attributes:
        vertices: (V, 3) of the mean shape, in the T pose, in metres.
        faces: (F, 3), indices of vertices, counterclockwise seen from outside.
        weights: (V, J), how much a vertex follows each joint; rows sum to 1.
        joints: (J, 3) of the mean shape.
        vertex_shapes: (S, V, 3), what one standard deviation of each shape parameter adds to the vertices.
        joint_shapes: (S, J, 3), the same for the joints.
        landmarks: (5,), the vertices of nose, eyes and ears.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    vertex_shapes: np.ndarray
    joint_shapes: np.ndarray
    landmarks: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.vertices)
        wanted = dict(
            vertices=(count, 3),
            faces=(len(self.faces), 3),
            weights=(count, len(JOINTS)),
            joints=(len(JOINTS), 3),
            vertex_shapes=(SHAPES, count, 3),
            joint_shapes=(SHAPES, len(JOINTS), 3),
            landmarks=(len(LANDMARKS),),
        )
        for name, shape in wanted.items():
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f'{name} of a body must be {shape}, but is {np.shape(getattr(self, name))}')


def skin(vertices: Tensor, joints: Tensor, weights: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Turn bodies at their joints by linear blend skinning.

    Args:
        vertices: (B, V, 3) at rest.
        joints: (B, J, 3) at rest, the pelvis in the origin.
        weights: (V, J).
        rotations: (B, J, 3, 3), of each joint against its parent.

    Returns:
        Vertices (B, V, 3) and joints (B, J, 3).
    """
    turns, places = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        bone = joints[:, joint] - joints[:, parent]
        turns.append(turns[parent] @ rotations[:, joint])
        places.append(places[parent] + (turns[parent] @ bone[..., None]).squeeze(-1))
    turn, place = torch.stack(turns, dim=1), torch.stack(places, dim=1)
    # What turns a joint's surroundings about where it was, and takes them to where it is: (B, J, 3, 4)
    moves = torch.cat([turn, (place - (turn @ joints[..., None]).squeeze(-1))[..., None]], dim=-1)
    # (V, J) x (B, J, 12) -> (B, V, 3, 4)
    blended = (weights @ moves.flatten(2)).unflatten(-1, (3, 4))
    return (blended[..., :3] @ vertices[..., None]).squeeze(-1) + blended[..., 3], place


class Body(nn.Module):
    """A body without parameters to learn; its tables are not saved with a model.

    Args:
        tables: What it is made of.
    """

    faces: Tensor
    landmarks: Tensor

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        for name, table in vars(tables).items():
            table = torch.as_tensor(np.asarray(table))
            self.register_buffer(name, table.float() if table.is_floating_point() else table.long(), persistent=False)

    def forward(self, rotations: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Pose bodies.

        Args:
            rotations: (B, J, 3, 3), of each joint against its parent; the pelvis' turns the whole body.
            shape: (B, S), in standard deviations.

        Returns:
            Vertices (B, V, 3) and joints (B, J, 3) in metres, in the coordinates in which the pelvis was turned.
        """
        vertices = self.vertices + torch.einsum('bs,svc->bvc', shape, self.vertex_shapes)
        joints = self.joints + torch.einsum('bs,sjc->bjc', shape, self.joint_shapes)
        return skin(vertices, joints, self.weights, rotations)

    def keypoints(self, vertices: Tensor, joints: Tensor) -> Tensor:
        """COCO's keypoints (B, 17, 3) of posed bodies, from their vertices (B, V, 3) and joints (B, J, 3)."""
        return torch.cat([vertices[:, self.landmarks], joints[:, list(COCO_JOINTS)]], dim=1)


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Where points (B, N, 3) are seen: (B, N, 2), with the crop's edges at -1 and 1.

    Args:
        camera: (B, 3) of weak perspective: a scale, and a shift along x and y in metres that comes before it.
    """
    return camera[:, None, :1] * (points[..., :2] + camera[:, None, 1:])
