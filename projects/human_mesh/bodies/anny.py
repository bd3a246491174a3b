"""The tables of the Anny body, a freely licensed one (code Apache-2.0, assets CC0), where it is installed.

Anny has more bones than there are joints here, hangs its arms down, and has shape parameters that do not act linearly.
Its bones are merged into the 24 joints, its arms raised to the T pose, and ten principal components of grown-up people
that it makes take the place of its parameters.
"""

import functools
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor

from scopevit.utils.errors import UserError

from .body import Body, Tables, skin
from .skeleton import INDEX, JOINTS, SHAPES

# Bones of Anny at whose heads our joints are; with them goes all that hangs on them and has no joint of its own.
MIDDLE = {
    'pelvis': 'root', 'spine1': 'spine04', 'spine2': 'spine03', 'spine3': 'spine02', 'neck': 'neck01', 'head': 'head',
}  # fmt: skip
SIDED = {
    'hip': 'upperleg01', 'knee': 'lowerleg01', 'ankle': 'foot', 'foot': 'toe3-1', 'collar': 'clavicle',
    'shoulder': 'upperarm01', 'elbow': 'lowerarm01', 'wrist': 'wrist', 'hand': 'finger3-1',
}  # fmt: skip
BONES = {**MIDDLE, **{f'{side}_{k}': f'{v}.{side[0].upper()}' for side in ('left', 'right') for k, v in SIDED.items()}}
# What moves with a joint though it does not hang on its bone.
TOGETHER = {'toe': 'foot', 'finger': 'hand', 'metacarpal': 'hand'}
GROWN_UP = {'age': (2 / 3, 1.0), 'height': (0.35, 0.65)}  # of Anny's parameters; the others go from 0 to 1


def joints_of_bones(labels: list[str], parents: list[int]) -> np.ndarray:
    """The joint (bones,) with which each bone moves."""
    joint_of = {bone: INDEX[joint] for joint, bone in BONES.items()}
    found: list[int] = []
    for label, parent in zip(labels, parents):
        side = {'L': 'left_', 'R': 'right_'}.get(label.rpartition('.')[2], '')
        together = next((joint for start, joint in TOGETHER.items() if label.startswith(start)), None)
        if together:
            found.append(INDEX[side + together])
        else:
            found.append(joint_of.get(label, found[parent] if parent >= 0 else 0))
    return np.array(found)


def upright(points: Tensor) -> Tensor:
    """Anny's coordinates (..., 3), z up and y to the back, as ours: y up and z to the front."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)


def raise_arms(joints: Tensor) -> Tensor:
    """Rotations (B, J, 3, 3) that take bodies with joints (B, J, 3) to the T pose."""
    rotations = torch.eye(3).repeat(len(joints), len(JOINTS), 1, 1)
    for side, sign in (('left', 1.0), ('right', -1.0)):
        outward, turned = torch.tensor([sign, 0.0, 0.0]), torch.eye(3).repeat(len(joints), 1, 1)
        for start, end in (('shoulder', 'elbow'), ('elbow', 'wrist'), ('wrist', 'hand')):
            bone = joints[:, INDEX[f'{side}_{end}']] - joints[:, INDEX[f'{side}_{start}']]
            turn = shortest_turn(torch.nn.functional.normalize(bone, dim=-1), outward)
            rotations[:, INDEX[f'{side}_{start}']] = turned.transpose(1, 2) @ turn
            turned = turn
    return rotations


def shortest_turn(here: Tensor, there: Tensor) -> Tensor:
    """Rotations (B, 3, 3) by the smallest angle that take unit vectors (B, 3) to one (3,), not the opposite one."""
    axis = torch.linalg.cross(here, there.expand_as(here))
    zero = torch.zeros_like(axis[:, 0])
    x, y, z = axis.unbind(-1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3) + cross + cross @ cross / (1 + here @ there)[:, None, None]


def anny_tables(model: Any, people: int = 256, seed: int = 0) -> Tables:
    """The tables of an ``anny.Anny``.

    Args:
        model: With triangles as faces, and bones of the names of Anny's own rig.
        people: How many the principal components are of.
        seed: Which people.

    Raises:
        UserError: If it has other bones or faces.
    """
    labels = list(model.bone_labels)
    missing = [bone for bone in BONES.values() if bone not in labels]
    faces = torch.as_tensor(model.faces)
    if missing or faces.shape[1] != 3:
        what = f'no bone {missing[0]}' if missing else f'faces of {faces.shape[1]} corners'
        raise UserError(f'this Anny model has {what}: take anny.Anny() with its own rig and topology')
    rng = np.random.default_rng(seed)
    drawn = {
        name: torch.from_numpy(rng.uniform(*GROWN_UP.get(name, (0, 1)), people)).float()
        for name in model.phenotype_labels
    }
    with torch.no_grad():
        rest = model(phenotype_kwargs=drawn)
    vertices, heads = upright(rest['rest_vertices'].float()), upright(rest['rest_bone_heads'].float())
    joints = heads[:, [labels.index(BONES[name]) for name in JOINTS]]
    vertices, heads, joints = (points - joints[:, :1] for points in (vertices, heads, joints))

    weights = torch.zeros(vertices.shape[1], len(JOINTS))
    owner = torch.from_numpy(joints_of_bones(labels, list(model.bone_parents)))
    weights.scatter_add_(1, owner[model.vertex_bone_indices.cpu()], model.vertex_bone_weights.float().cpu())
    weights /= weights.sum(dim=1, keepdim=True)
    vertices, joints = skin(vertices, joints, weights, raise_arms(joints))

    # Principal components of vertices and joints together, by the people's products with one another.
    together = torch.cat([vertices, joints], dim=1).flatten(1)
    mean = together.mean(dim=0)
    values, vectors = torch.linalg.eigh((together - mean).double() @ (together - mean).double().T)
    largest = values.argsort(descending=True)[:SHAPES]
    components = (vectors[:, largest].T @ (together - mean).double()) / (people - 1) ** 0.5
    components = components.unflatten(1, (-1, 3)).numpy()
    mean = mean.unflatten(0, (-1, 3)).numpy()
    components *= signs_of(components[:, mean[:, 0] >= 0])[:, None, None]
    count = vertices.shape[1]
    eyes = heads.mean(dim=0)[[labels.index(f'eye.{side}') for side in 'LR']].numpy()
    return Tables(
        vertices=mean[:count],
        faces=faces.cpu().numpy(),
        weights=weights.numpy(),
        joints=mean[count:],
        vertex_shapes=components[:, :count],
        joint_shapes=components[:, count:],
        landmarks=find_landmarks(mean[:count], weights[:, INDEX['head']].numpy(), eyes),
    )


def signs_of(components: np.ndarray) -> np.ndarray:
    """Signs (S,) that make the entry of largest magnitude of each component positive; eigenvectors have either sign.

    Args:
        components: (S, N, 3) of one half of the body; along x the other half has the same magnitudes with other signs.
    """
    flat = components.reshape(len(components), -1)
    largest = flat[np.arange(len(flat)), abs(flat).argmax(axis=1)]
    return np.where(largest < 0, -1, 1)


def find_landmarks(vertices: np.ndarray, of_head: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Vertices (5,) of nose, eyes and ears: what is most in front, before the middles of the eyes, and outermost.

    Args:
        vertices: (V, 3).
        of_head: (V,), how much each follows the head.
        eyes: (2, 3).
    """
    head = np.flatnonzero(of_head > 0.5)
    x, y, z = vertices[head].T
    nose = z.argmax()
    before = [np.where(z > eye[2], np.hypot(x - eye[0], y - eye[1]), np.inf).argmin() for eye in eyes]
    return head[[nose, *before, x.argmax(), x.argmin()]]


@functools.cache
def _installed_tables() -> Tables:
    try:
        import anny
    except ImportError as error:
        raise UserError(
            'AnnyBody needs the package anny: pip install -r projects/human_mesh/requirements.txt'
        ) from error
    return anny_tables(anny.Anny().float())


@MODELS.register_module()
class AnnyBody(Body):
    """The Anny body; the first time it is built takes minutes, in which Anny fills a cache of its own.

    Raises:
        UserError: If Anny is not installed.
    """

    def __init__(self) -> None:
        super().__init__(_installed_tables())
