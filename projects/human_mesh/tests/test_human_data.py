"""Images of bodies and their labels: drawn alike wherever they are asked for, and true after every transform."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from projects.human_mesh.bodies import CapsuleBody, project
from projects.human_mesh.bodies.skeleton import INDEX
from projects.human_mesh.data import PosedBodies
from projects.human_mesh.synthetic import SIZE, draw_body, face_parts
from scopevit.apis.model import in_scope
from scopevit.utils.errors import UserError

AFFINE = dict(type='TopdownAffine', input_size=(64, 64))
PACK = [AFFINE, dict(type='BodyLabels'), dict(type='PackPoseInputs')]


@pytest.fixture(scope='module')
def body():
    return CapsuleBody()


def dataset(pipeline=(), **options):
    with in_scope('mmpose'):
        return PosedBodies(
            **{'count': 20, **options}, pipeline=[dict(type='GetBBoxCenterScale', padding=1.2), *pipeline]
        )


def test_an_image_is_the_same_in_any_order_and_splits_differ(body):
    first, again = draw_body(0, 0, 5, body), (draw_body(0, 0, 6, body), draw_body(0, 0, 5, body))[1]
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(again, name))
    for other in (draw_body(0, 1, 5, body), draw_body(1, 0, 5, body), draw_body(0, 0, 6, body)):
        assert not np.array_equal(other.image, first.image)
        assert not np.array_equal(other.rotations, first.rotations)


def test_labels_are_where_the_body_is_drawn(body):
    for index in range(12):
        drawn = draw_body(0, 0, index, body)
        rotations, shape, camera = (
            torch.from_numpy(each)[None] for each in (drawn.rotations, drawn.shape, drawn.camera)
        )
        vertices, joints = body(rotations, shape)
        np.testing.assert_allclose(vertices[0], drawn.vertices, atol=1e-5)
        np.testing.assert_allclose(joints[0], drawn.joints, atol=1e-5)
        places = project(body.keypoints(vertices, joints), camera)[0].numpy()
        np.testing.assert_allclose(drawn.keypoints[:, :2], places, atol=1e-3)
        inside = ((places >= 0) & (places <= SIZE - 1)).all(axis=1)
        np.testing.assert_array_equal(drawn.keypoints[:, 2] > 0, inside)
        # What is seen is within the box, and joints of limbs lie under skin that is drawn, if nothing is before it.
        y, x = drawn.mask.nonzero()
        left, top, right, bottom = drawn.box
        assert left - 1 <= x.min() <= x.max() <= right + 1
        assert top - 1 <= y.min() <= y.max() <= bottom + 1
        for x, y, seen in drawn.keypoints[5:]:
            assert not seen or drawn.mask[int(y + 0.5), int(x + 0.5)] == (seen == 2)


def test_images_show_what_they_are_meant_to(body):
    drawn = [draw_body(0, 0, index, body) for index in range(60)]
    heights = [d.box[3] - d.box[1] for d in drawn]
    assert min(heights) > 0.2 * SIZE
    hidden = np.mean([(d.keypoints[:, 2] == 1).any() for d in drawn])
    cut_off = np.mean([(d.keypoints[:, 2] == 0).any() for d in drawn])
    assert 0.02 < hidden < 0.4
    assert 0.02 < cut_off < 0.4
    facing = np.mean([d.rotations[0] @ (0, 0, 1) @ (0, 0, -1) > 0 for d in drawn])
    assert 0.55 < facing < 0.95
    parts = face_parts(body)
    limbs = ('hip', 'knee', 'ankle', 'shoulder', 'elbow', 'wrist')
    assert {INDEX[f'{side}_{name}'] for name in limbs for side in ('left', 'right')} < set(parts)
    assert (parts == 24).sum() > 20  # hair


@pytest.mark.parametrize(
    'steps',
    [
        [],
        [dict(type='RandomFlip', prob=1.0)],
        [dict(type='RandomBBoxTransform', rotate_factor=60, rotate_prob=1.0, scale_factor=(0.7, 1.3), shift_prob=1.0)],
        [dict(type='RandomFlip', prob=1.0), dict(type='RandomBBoxTransform', rotate_factor=60, rotate_prob=1.0)],
    ],
    ids=['as it is', 'mirrored', 'turned', 'both'],
)
def test_labels_stay_exact_under_augmentation(body, steps):
    """The body of the labels, seen by some camera of weak perspective, has its keypoints where they are in the crop."""
    np.random.seed(0)
    data = dataset([*steps, *PACK])
    for index in range(4):
        labels = data[index]['data_samples'].gt_instance_labels
        vertices, joints = body(labels.body_rotations, labels.body_shape)
        points, places = body.keypoints(vertices, joints)[0, :, :2].numpy(), labels.keypoint_labels[0].numpy()
        # One scale for both axes, and a shift: the best by least squares leaves nothing.
        spread, goal = points - points.mean(0), places - places.mean(0)
        scale = (spread * goal).sum() / (spread**2).sum()
        assert scale > 0.3
        np.testing.assert_allclose(scale * spread, goal, atol=2e-3)


def test_the_crop_shows_what_its_labels_say(body):
    """The body of the labels, drawn into the crop, covers the pixels that the augmented image's body has."""
    import cv2

    np.random.seed(1)
    steps = [dict(type='RandomFlip', prob=1.0), dict(type='RandomBBoxTransform', rotate_prob=1.0, rotate_factor=60)]
    data = dataset([*steps, AFFINE, dict(type='BodyLabels')])
    for index in (0, 3, 5):
        # The image is replaced by the body's own pixels, which take the same way.
        item = data.get_data_info(index)
        item['img'] = 255 * draw_body(0, 0, index, body).mask.astype(np.uint8)
        with in_scope('mmpose'):
            result = data.pipeline(item)
        vertices, joints = body(*(torch.from_numpy(result[name]) for name in ('body_rotations', 'body_shape')))
        points, places = body.keypoints(vertices, joints)[0, :, :2].numpy(), result['transformed_keypoints'][0]
        spread = points - points.mean(0)
        scale = (spread * (places - places.mean(0))).sum() / (spread**2).sum()
        pixels = (vertices[0, :, :2].numpy() - points.mean(0)) * scale + places.mean(0)
        painted = np.zeros((64, 64), np.uint8)
        for triangle in np.round(pixels[body.faces.numpy()]).astype(np.int32):
            cv2.fillConvexPoly(painted, triangle, 255)
        both, either = ((painted > 127) & (result['img'] > 127)).sum(), ((painted > 127) | (result['img'] > 127)).sum()
        assert both / either > 0.7


def test_keypoints_alone_say_nothing_of_the_body():
    labels = dataset(PACK, labels='keypoints')[0]['data_samples'].gt_instance_labels
    assert labels.has_body.tolist() == [0]
    assert not labels.body_rotations.any()
    with_all = dataset(PACK)[0]['data_samples'].gt_instance_labels
    assert with_all.has_body.tolist() == [1]
    torch.testing.assert_close(labels.keypoint_labels, with_all.keypoint_labels)


def test_a_larger_set_begins_with_the_smaller_one():
    small, large = dataset(PACK, count=3), dataset(PACK, count=1_000_000)
    assert (len(small), len(large)) == (3, 1_000_000)
    assert torch.equal(small[2]['inputs'], large[2]['inputs'])


def test_wrong_settings_and_vertical_flips_are_refused():
    for wrong in (dict(split='test'), dict(labels='none')):
        with pytest.raises(UserError, match="split='train' or 'val' and labels='all' or 'keypoints'"):
            DATASETS.build(dict(type='PosedBodies', count=1, **wrong))
    with pytest.raises(UserError, match='horizontal flips alone, not vertical'):
        dataset([dict(type='RandomFlip', prob=1.0, direction='vertical'), *PACK])[0]


def test_labels_in_double_precision_are_taken_as_well():
    data = dataset([dict(type='RandomFlip', prob=1.0), *PACK])
    item = data.get_data_info(0)
    double = {name: item[name].astype(np.float64) for name in ('body_rotations', 'body_shape')}
    with in_scope('mmpose'):
        first, second = (
            data.pipeline({**item, **changed})['data_samples'].gt_instance_labels for changed in ({}, double)
        )
    for name in double:
        assert second[name].dtype == torch.float32
        torch.testing.assert_close(second[name], first[name])


def test_an_image_without_labels_passes():
    """As in a prediction, where a box is all that is known."""
    with in_scope('mmpose'):
        pipeline = Compose([dict(type='GetBBoxCenterScale'), *PACK])
        image, box = np.zeros((40, 50, 3), np.uint8), np.array([[0, 0, 49, 39]], np.float32)
        packed = pipeline(dict(img=image, img_shape=(40, 50), bbox=box, bbox_score=np.ones(1, np.float32)))
    assert packed['inputs'].shape == (3, 64, 64)
