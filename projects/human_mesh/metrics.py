"""How far a body is from the ground truth, in millimetres."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from torch import Tensor

from scopevit.utils.errors import UserError

from .bodies import CapsuleBody


def mean_distance(points: Tensor, gt_points: Tensor) -> Tensor:
    """Mean distance of corresponding points (B, N, 3): (B,), in their unit."""
    return (points - gt_points).norm(dim=-1).mean(dim=-1)


def from_root(points: Tensor, joints: Tensor) -> Tensor:
    """Points (B, N, 3) seen from the pelvis, the first of the joints (B, 24, 3)."""
    return points - joints[:, :1]


def aligned(points: Tensor, gt_points: Tensor) -> Tensor:
    """Points (B, N, 3) shifted, turned and scaled so that they lie as near to the ground truth as they can.

    The similarity of least squares, never a mirroring: Umeyama, "Least-squares estimation of transformation parameters
    between two point patterns", 1991.
    """
    points, gt_points = points.double(), gt_points.double()
    centre, goal = points.mean(dim=1, keepdim=True), gt_points.mean(dim=1, keepdim=True)
    spread = points - centre
    # (B, 3, N) x (B, N, 3): how the axes of the one go with those of the other
    u, singular, v = torch.linalg.svd((gt_points - goal).transpose(1, 2) @ spread)
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.sign(torch.linalg.det(u @ v))
    turn = u @ (signs[..., None] * v)
    scale = (singular * signs).sum(dim=1) / spread.square().sum(dim=(1, 2)).clamp(min=1e-12)
    return scale[:, None, None] * spread @ turn.transpose(1, 2) + goal


def errors(vertices: Tensor, joints: Tensor, gt_vertices: Tensor, gt_joints: Tensor) -> dict[str, Tensor]:
    """Each body's errors (B,) in millimetres, from vertices (B, V, 3) and joints (B, 24, 3) in metres.

    MPJPE is the mean distance of the joints and PVE that of the vertices, with the pelvises in one place; PA-MPJPE is
    that of the joints after the best similarity.
    """
    found = dict(
        MPJPE=mean_distance(from_root(joints, joints), from_root(gt_joints, gt_joints)),
        PVE=mean_distance(from_root(vertices, joints), from_root(gt_vertices, gt_joints)),
    )
    found['PA-MPJPE'] = mean_distance(aligned(joints, gt_joints), gt_joints.double())
    return {name: 1000 * value for name, value in found.items()}


@METRICS.register_module()
class BodyError(BaseMetric):
    """MPJPE, PA-MPJPE and PVE of bodies, in millimetres; less is better.

    Args:
        body: The body of the labels, as the registry of models builds it; by default our own.
        collect_device: As MMEngine has it.
        prefix: Of the names.
    """

    default_prefix = 'body'

    def __init__(self, body: dict | None = None, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.body = MODELS.build(body) if body else CapsuleBody()

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        def stacked(part: str, name: str) -> Tensor:
            return torch.cat([torch.as_tensor(sample[part][name]).cpu() for sample in data_samples])

        if not stacked('gt_instance_labels', 'has_body').all():
            raise UserError('BodyError needs data with poses and shapes; keypoints alone tell nothing of them')
        rotations, shape = (stacked('gt_instance_labels', f'body_{name}') for name in ('rotations', 'shape'))
        with torch.no_grad():
            ground_truth = self.body(rotations, shape)
        found = errors(stacked('pred_instances', 'vertices'), stacked('pred_instances', 'joints'), *ground_truth)
        self.results += [dict(zip(found, values)) for values in zip(*(value.tolist() for value in found.values()))]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return {name: sum(result[name] for result in results) / len(results) for name in results[0]}
