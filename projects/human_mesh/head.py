"""The head: from the backbone's last map to a posed body, by steps that correct one another.

    B images   D channels of features   P = 24 * 6 + 10 + 3 numbers: pose, shape and camera

After Kanazawa et al., "End-to-end Recovery of Human Shape and Pose", CVPR 2018, which takes the step three times, and
Kolotouros et al., "Learning to Reconstruct 3D Human Pose and Shape via Model-fitting in the Loop", ICCV 2019, which has
the rotations in six numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpose.models.heads.base_head import BaseHead
from torch import Tensor, nn

from scopevit.utils.errors import UserError, did_you_mean

from .bodies import Body, CapsuleBody, project
from .bodies.poses import mean_pose
from .bodies.rotations import matrix_from_6d, matrix_to_6d
from .bodies.skeleton import JOINTS, SHAPES
from .metrics import from_root

POSE = 6 * len(JOINTS)
CAMERA = (0.9, 0.0, 0.1)
"""Where the camera begins: a body that fills the crop, whose pelvis is a little below the middle."""


@dataclass
class Estimate:
    """Bodies as they are estimated.

    Attributes:
        rotations: (B, 24, 3, 3).
        shape: (B, 10).
        camera: (B, 3), as :func:`project` takes it.
        vertices: (B, V, 3) in metres.
        joints: (B, 24, 3) in metres.
        keypoints: (B, 17, 2), COCO's, with the crop's edges at -1 and 1.
    """

    rotations: Tensor
    shape: Tensor
    camera: Tensor
    vertices: Tensor
    joints: Tensor
    keypoints: Tensor


LOSSES = {
    'keypoints': 'distance along x and y of COCO\'s keypoints in the crop, those that are labelled',
    'joints': 'distance along the axes of the joints, seen from the pelvis, in metres',
    'vertices': 'the same of the vertices',
    'rotations': 'squared difference of the rotation matrices',
    'shape': 'squared difference of the shape parameters',
    'pose_prior': 'squared difference of the rotation matrices below the pelvis from the mean pose; of all images',
    'shape_prior': 'squared shape parameters; of all images',
}  # fmt: skip
"""The losses that a head can have. All but the first and the last two are of images whose body is known."""


@MODELS.register_module()
class BodyHead(BaseHead):
    """Pose, shape and camera of a body by iterative regression.

    Args:
        in_channels: D of the backbone's last map.
        body: The body, as the registry of models builds it; by default our own.
        channels: Width of the two hidden layers.
        steps: How often the estimate is corrected.
        dropout: In the hidden layers.
        losses: Weight of each loss by its name in ``LOSSES``; one that is not named is left out.
        init_cfg: How weights begin, as MMEngine has it.

    Raises:
        UserError: If there is no loss of a name.
    """

    def __init__(
        self,
        in_channels: int,
        body: dict | None = None,
        channels: int = 512,
        steps: int = 3,
        dropout: float = 0.0,
        losses: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.weights = dict(losses if losses is not None else dict(keypoints=1.0))
        for name in self.weights:
            if name not in LOSSES:
                raise UserError(
                    f'BodyHead has no loss {name!r}{did_you_mean(name, list(LOSSES))} (there are {", ".join(LOSSES)})'
                )
        self.body: Body = MODELS.build(body) if body else CapsuleBody()
        self.steps = steps
        start = torch.cat([matrix_to_6d(mean_pose()).flatten(), torch.zeros(SHAPES), torch.tensor(CAMERA)])
        self.register_buffer('start', start)
        self.register_buffer('prior', mean_pose()[1:], persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(in_channels + len(start), channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, len(start)),
        )
        nn.init.xavier_uniform_(self.layers[-1].weight, gain=0.01)  # the mean body to begin with
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, feats: tuple[Tensor, ...]) -> Estimate:
        features = feats[-1].mean(dim=(2, 3))  # (B, D, H, W) -> (B, D)
        numbers = self.start.expand(len(features), -1)
        for _ in range(self.steps):
            numbers = numbers + self.layers(torch.cat([features, numbers], dim=1))
        # Half precision, as an autocast has it, would move joints by millimetres.
        with torch.autocast(numbers.device.type, enabled=False):
            return self.pose(numbers.float())

    def pose(self, numbers: Tensor) -> Estimate:
        """The bodies of numbers (B, P)."""
        rotations = matrix_from_6d(numbers[:, :POSE].unflatten(1, (len(JOINTS), 6)))
        shape, camera = numbers[:, POSE : POSE + SHAPES], numbers[:, POSE + SHAPES :]
        vertices, joints = self.body(rotations, shape)
        keypoints = project(self.body.keypoints(vertices, joints), camera)
        return Estimate(rotations, shape, camera, vertices, joints, keypoints)

    def loss(self, feats: tuple[Tensor, ...], batch_data_samples: list, train_cfg: object = None) -> dict[str, Tensor]:
        found = self(feats)

        def label(name: str) -> Tensor:
            return torch.cat([sample.gt_instance_labels[name] for sample in batch_data_samples])

        losses = {}
        if 'keypoints' in self.weights:
            distance = (found.keypoints - label('keypoint_labels')).abs().sum(dim=-1)
            losses['keypoints'] = weighted_mean(distance, label('keypoint_weights'))
        if 'pose_prior' in self.weights:
            losses['pose_prior'] = (found.rotations[:, 1:] - self.prior).square().mean()
        if 'shape_prior' in self.weights:
            losses['shape_prior'] = found.shape.square().mean()
        if self.weights.keys() & {'joints', 'vertices', 'rotations', 'shape'}:
            labels = label('body_rotations'), label('body_shape'), label('has_body')
            with torch.autocast(found.shape.device.type, enabled=False):
                losses.update(self.body_losses(found, *labels))
        return {f'loss_{name}': weight * losses[name] for name, weight in self.weights.items()}

    def body_losses(self, found: Estimate, rotations: Tensor, shape: Tensor, known: Tensor) -> dict[str, Tensor]:
        """The losses of bodies that are known: those of which ``known`` (B,) is 1."""
        with torch.no_grad():
            vertices, joints = self.body(rotations, shape)
        differences = dict(
            joints=(from_root(found.joints, found.joints) - from_root(joints, joints)).abs(),
            vertices=(from_root(found.vertices, found.joints) - from_root(vertices, joints)).abs(),
            rotations=(found.rotations - rotations).square(),
            shape=(found.shape - shape).square(),
        )
        return {name: weighted_mean(each.flatten(1).mean(dim=1), known) for name, each in differences.items()}

    def predict(
        self, feats: tuple[Tensor, ...], batch_data_samples: list, test_cfg: object = None
    ) -> list[InstanceData]:
        found = self(feats)
        sizes = np.array([sample.metainfo['input_size'] for sample in batch_data_samples], np.float32)
        # mmpose takes keypoints in the pixels of the crop.
        keypoints = (found.keypoints.cpu().numpy() + 1) / 2 * sizes[:, None]
        arrays = {
            name: getattr(found, name).cpu().numpy() for name in ('rotations', 'shape', 'camera', 'vertices', 'joints')
        }
        scores = np.ones((1, keypoints.shape[1]), np.float32)  # a body has all its joints
        return [
            InstanceData(
                keypoints=keypoints[i : i + 1],
                keypoint_scores=scores,
                **{name: array[i : i + 1] for name, array in arrays.items()},
            )
            for i in range(len(keypoints))
        ]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of values by weights of the same size; 0 where no weight is."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
