"""The head: where it begins, what its losses are, and that it learns."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample

from projects.human_mesh.bodies import project
from projects.human_mesh.bodies.poses import draw_pose, draw_shape, mean_pose
from projects.human_mesh.head import LOSSES, BodyHead
from projects.human_mesh.metrics import errors, from_root
from scopevit.utils.errors import UserError

ALL = dict.fromkeys(LOSSES, 1.0)


def batch(head, count=6, known=None):
    """Data samples of bodies that a camera sees."""
    rng = np.random.default_rng(0)
    rotations, shapes = map(torch.stack, zip(*((draw_pose(rng), draw_shape(rng)) for _ in range(count))))
    vertices, joints = head.body(rotations, shapes)
    keypoints = project(head.body.keypoints(vertices, joints), torch.tensor([[0.8, 0.05, 0.1]]).expand(count, 3))
    samples = []
    for i in range(count):
        labels = InstanceData(
            keypoint_labels=keypoints[i : i + 1],
            keypoint_weights=(torch.arange(17) % 5 > 0).float()[None],
            body_rotations=rotations[i : i + 1],
            body_shape=shapes[i : i + 1],
            has_body=torch.tensor([1.0 if known is None else known[i]]),
        )
        sample = PoseDataSample(metainfo=dict(input_size=(64, 48)))
        sample.gt_instance_labels = labels
        samples.append(sample)
    return samples, vertices, joints


def features(count=6, channels=16):
    return (torch.randn(count, channels, 2, 2, generator=torch.Generator().manual_seed(0)),)


def stacked(samples, name):
    return torch.cat([sample.gt_instance_labels[name] for sample in samples])


def test_it_begins_near_the_mean_body():
    torch.manual_seed(0)
    found = BodyHead(16)(features())
    torch.testing.assert_close(found.rotations, mean_pose().expand(6, -1, -1, -1), atol=0.1, rtol=0)
    assert found.shape.abs().max() < 0.1
    assert found.keypoints.abs().max() < 1.2  # in the crop
    assert found.keypoints[0, 0, 1] < found.keypoints[0, 15, 1] - 0.5  # the nose above the ankle


def test_each_loss_is_that_of_a_plain_formula():
    torch.manual_seed(0)
    head = BodyHead(16, losses=ALL)
    samples, vertices, joints = batch(head)
    losses, found = head.loss(features(), samples), head(features())
    weights = stacked(samples, 'keypoint_weights').bool()
    plain = dict(
        keypoints=(found.keypoints - stacked(samples, 'keypoint_labels')).abs().sum(-1)[weights].mean(),
        joints=(from_root(found.joints, found.joints) - from_root(joints, joints)).abs().mean(),
        vertices=(from_root(found.vertices, found.joints) - from_root(vertices, joints)).abs().mean(),
        rotations=(found.rotations - stacked(samples, 'body_rotations')).pow(2).mean(),
        shape=(found.shape - stacked(samples, 'body_shape')).pow(2).mean(),
        pose_prior=(found.rotations - mean_pose())[:, 1:].pow(2).mean(),
        shape_prior=found.shape.pow(2).mean(),
    )
    assert set(losses) == {f'loss_{name}' for name in plain}
    for name, value in plain.items():
        torch.testing.assert_close(losses[f'loss_{name}'], value)
    doubled = BodyHead(16, losses=dict(joints=2.0))
    doubled.load_state_dict(head.state_dict())
    torch.testing.assert_close(doubled.loss(features(), samples), dict(loss_joints=2 * plain['joints']))


def test_bodies_are_posed_and_scored_in_float32_under_autocast():
    torch.manual_seed(0)
    head = BodyHead(16, losses=ALL)
    samples, vertices, joints = batch(head)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found, losses = head(features()), head.loss(features(), samples)
    for value, exact in zip((found.vertices, found.joints), head.body(found.rotations, found.shape)):
        torch.testing.assert_close(value, exact)  # bfloat16 differs by millimetres
    for name, points, gt_points in (('vertices', found.vertices, vertices), ('joints', found.joints, joints)):
        exact = (from_root(points, found.joints) - from_root(gt_points, joints)).abs().mean()
        torch.testing.assert_close(losses[f'loss_{name}'], exact)


def test_images_whose_body_is_not_known_count_by_their_keypoints_alone():
    torch.manual_seed(0)
    head = BodyHead(16, losses=ALL)
    samples, *_ = batch(head, known=[1, 1, 1, 0, 0, 0])
    half, whole = head.loss(tuple(f[:3] for f in features()), samples[:3]), head.loss(features(), samples)
    for name in ('joints', 'vertices', 'rotations', 'shape'):
        torch.testing.assert_close(whole[f'loss_{name}'], half[f'loss_{name}'])
    assert whole['loss_keypoints'] != half['loss_keypoints']
    samples, *_ = batch(head, known=[0] * 6)
    losses = head.loss(features(), samples)
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses['loss_joints'] == 0


def test_every_weight_and_the_features_have_gradients():
    torch.manual_seed(0)
    head = BodyHead(16, losses=dict(keypoints=1.0))
    samples, *_ = batch(head)
    maps = (features()[0].requires_grad_(),)
    sum(head.loss(maps, samples).values()).backward()
    assert maps[0].grad.abs().max() > 0
    assert not [name for name, parameter in head.named_parameters() if parameter.grad is None]


def test_bodies_are_learnt_from_features_that_tell_them_apart():
    torch.manual_seed(0)
    head = BodyHead(16, losses=dict(keypoints=1.0, joints=10.0, vertices=5.0, rotations=10.0, shape=0.02))
    samples, vertices, joints = batch(head)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)

    def mpjpe():
        with torch.no_grad():
            found = head(features())
        return errors(found.vertices, found.joints, vertices, joints)['MPJPE'].mean().item()

    before = mpjpe()
    for _ in range(120):
        optimizer.zero_grad()
        sum(head.loss(features(), samples).values()).backward()
        optimizer.step()
    assert mpjpe() < 0.25 * before


def test_predictions_have_keypoints_in_the_pixels_of_the_crop():
    torch.manual_seed(0)
    head = BodyHead(16).eval()
    samples, *_ = batch(head)
    with torch.no_grad():
        found, instances = head(features()), head.predict(features(), samples)
    assert len(instances) == 6
    expected = (found.keypoints[2].numpy() + 1) / 2 * (64, 48)
    np.testing.assert_allclose(instances[2].keypoints[0], expected, rtol=1e-5)
    assert instances[2].vertices.shape == (1, len(head.body.vertices), 3)
    assert instances[2].keypoint_scores.shape == (1, 17)


def test_tables_are_not_saved_and_wrong_losses_are_refused():
    assert not [name for name in BodyHead(16).state_dict() if name.startswith('body')]
    with pytest.raises(UserError, match="no loss 'vertex'; did you mean vertices"):
        BodyHead(16, losses=dict(vertex=1.0))
