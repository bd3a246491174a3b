"""Errors of bodies against plain formulas, and what they do not depend on."""

import numpy as np
import pytest
import torch

from projects.human_mesh.bodies import CapsuleBody
from projects.human_mesh.bodies.poses import draw_pose, draw_shape
from projects.human_mesh.bodies.rotations import matrix_from_axis_angle
from projects.human_mesh.metrics import BodyError, aligned, errors
from scopevit.utils.errors import UserError


@pytest.fixture(scope='module')
def bodies():
    """Parameters, vertices and joints of four bodies."""
    rng = np.random.default_rng(0)
    rotations, shapes = map(torch.stack, zip(*((draw_pose(rng), draw_shape(rng)) for _ in range(4))))
    return rotations, shapes, *CapsuleBody()(rotations, shapes)


def perturbed(points, seed=0):
    return points + 0.05 * torch.randn(points.shape, generator=torch.Generator().manual_seed(seed))


def similar(points, scale=1.0):
    """The same points elsewhere, turned, and of another size."""
    turn = matrix_from_axis_angle(torch.tensor([0.4, -1.1, 2.0]))
    return scale * points @ turn.T + torch.tensor([0.3, -2.0, 5.0])


def plain_pa_mpjpe(points, gt_points):
    """Of one body, in NumPy: the best rotation by an SVD of the covariance, the scale by the ratio of traces."""
    points, gt_points = points.numpy().astype(float), gt_points.numpy().astype(float)
    a, b = points - points.mean(0), gt_points - gt_points.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    flip = np.diag([1, 1, np.linalg.det(u @ vt)])
    turn = u @ flip @ vt  # rows are turned from the right
    scale = np.trace((a @ turn).T @ b) / (a**2).sum()
    return 1000 * np.mean([np.sqrt(((scale * p @ turn - t) ** 2).sum()) for p, t in zip(a, b)])


def test_errors_are_those_of_plain_formulas(bodies):
    _, _, vertices, joints = bodies
    wrong_vertices, wrong_joints = perturbed(vertices), perturbed(joints, 1)
    found = errors(wrong_vertices, wrong_joints, vertices, joints)
    for b in range(4):
        root = wrong_joints[b, 0] - joints[b, 0]
        mpjpe = [(wrong_joints[b, j] - root - joints[b, j]).square().sum().sqrt() for j in range(24)]
        pve = [(wrong_vertices[b, v] - root - vertices[b, v]).square().sum().sqrt() for v in range(len(vertices[b]))]
        assert found['MPJPE'][b].item() == pytest.approx(1000 * sum(mpjpe).item() / 24, rel=1e-4)
        assert found['PVE'][b].item() == pytest.approx(1000 * sum(pve).item() / len(pve), rel=1e-4)
        assert found['PA-MPJPE'][b].item() == pytest.approx(plain_pa_mpjpe(wrong_joints[b], joints[b]), rel=1e-5)


def test_the_ground_truth_has_no_error_and_one_joint_counts_a_24th(bodies):
    _, _, vertices, joints = bodies
    for value in errors(vertices, joints, vertices, joints).values():
        assert value.abs().max() < 1e-3
    moved = joints.clone()
    moved[:, 20] += torch.tensor([0.0, 0.024, 0.0])  # 24 mm
    torch.testing.assert_close(errors(vertices, moved, vertices, joints)['MPJPE'], torch.ones(4), rtol=1e-3, atol=0)


def test_mpjpe_and_pve_do_not_depend_on_where_a_body_is_but_on_how_it_is_turned(bodies):
    _, _, vertices, joints = bodies
    wrong = perturbed(vertices), perturbed(joints, 1)
    shift = torch.tensor([1.0, -2.0, 3.0])
    before, after = errors(*wrong, vertices, joints), errors(wrong[0] + shift, wrong[1] + shift, vertices, joints)
    for name in ('MPJPE', 'PVE'):
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3)
    turned = errors(similar(vertices), similar(joints), vertices, joints)
    assert turned['MPJPE'].min() > 100


def test_pa_mpjpe_does_not_depend_on_place_direction_and_size(bodies):
    _, _, vertices, joints = bodies
    wrong = perturbed(joints)
    before = errors(vertices, wrong, vertices, joints)['PA-MPJPE']
    assert before.min() > 10
    after = errors(vertices, similar(wrong, scale=0.4), vertices, joints)['PA-MPJPE']
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)


def test_a_mirrored_body_is_not_turned_inside_out(bodies):
    _, _, vertices, joints = bodies
    mirror = joints * torch.tensor([-1.0, 1, 1])
    assert errors(vertices, mirror, vertices, joints)['PA-MPJPE'].min() > 20  # 0 if mirroring were allowed


def test_no_similarity_near_the_best_one_is_better(bodies):
    _, _, _, joints = bodies
    best = aligned(perturbed(joints), joints)
    least = (best - joints).square().sum()
    centre = best.mean(dim=1, keepdim=True)
    for change in range(3):
        turn = matrix_from_axis_angle(0.01 * torch.eye(3)[change].double())
        for other in ((best - centre) @ turn.T + centre, (best - centre) * (1 + 0.01 * (change - 1)) + centre + 1e-3):
            assert (other - joints).square().sum() > least


def sample(rotations, shape, vertices, joints, has_body=1.0):
    labels = dict(body_rotations=rotations[None], body_shape=shape[None], has_body=torch.tensor([has_body]))
    return dict(
        gt_instance_labels=labels, pred_instances=dict(vertices=vertices[None].numpy(), joints=joints[None].numpy())
    )


def test_the_metric_is_the_mean_over_all_images(bodies):
    rotations, shapes, vertices, joints = bodies
    wrong = perturbed(vertices), perturbed(joints, 1)
    metric = BodyError()
    samples = [sample(rotations[i], shapes[i], wrong[0][i], wrong[1][i]) for i in range(4)]
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    found = metric.evaluate(size=4)
    for name, value in errors(*wrong, vertices, joints).items():
        assert found[f'body/{name}'] == pytest.approx(value.mean().item(), rel=1e-4)


def test_keypoints_alone_cannot_be_scored_as_bodies(bodies):
    with pytest.raises(UserError, match='BodyError needs data with poses and shapes'):
        BodyError().process(None, [sample(*(each[0] for each in bodies), has_body=0.0)])
