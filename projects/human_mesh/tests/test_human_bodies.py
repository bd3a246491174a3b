"""Bodies: what they are made of, how they move, and poses at random."""

import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from projects.human_mesh.bodies import AnnyBody, Body, CapsuleBody, project
from projects.human_mesh.bodies.anny import BONES, _installed_tables, anny_tables
from projects.human_mesh.bodies.capsules import capsule_tables, surface
from projects.human_mesh.bodies.poses import draw_pose, draw_shape, mean_pose
from projects.human_mesh.bodies.rotations import matrix_from_6d, matrix_from_axis_angle, matrix_to_6d, mirrored
from projects.human_mesh.bodies.skeleton import COCO_JOINTS, INDEX, JOINTS, MIRRORED, PARENTS
from scopevit.utils.errors import UserError

NO_TURN = torch.eye(3).expand(24, 3, 3)


@pytest.fixture(scope='module')
def body():
    return CapsuleBody()


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(torch.stack(each) for each in zip(*((draw_pose(rng), draw_shape(rng)) for _ in range(count))))


# Rotations


def test_six_numbers_make_a_rotation_and_back():
    matrices = matrix_from_6d(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).double().expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(50).double())
    torch.testing.assert_close(matrix_from_6d(matrix_to_6d(matrices)), matrices)
    # The first column keeps the direction of the first three numbers, whatever their length.
    torch.testing.assert_close(matrix_from_6d(torch.tensor([0.0, 3, 0, 0, 1, 5]))[:, 0], torch.tensor([0.0, 1, 0]))


def test_axis_and_angle_make_the_rotation_that_scipy_makes():
    vectors = np.random.default_rng(0).normal(size=(20, 3)) * 2
    matrices = matrix_from_axis_angle(torch.from_numpy(vectors))
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


# The body


def test_the_skin_is_closed_and_of_a_persons_size():
    tables = capsule_tables()
    edges = Counter((face[i], face[(i + 1) % 3]) for face in tables.faces.tolist() for i in range(3))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)  # two triangles at each edge, turned the same way
    assert len(tables.vertices) - len(edges) // 2 + len(tables.faces) == 2  # one piece without holes
    a, b, c = tables.vertices[tables.faces].transpose(1, 0, 2)
    volume = (np.cross(a, b) * c).sum() / 6  # positive: counterclockwise seen from outside
    assert 0.05 < volume < 0.09
    assert 1.6 < np.ptp(tables.vertices[:, 1]) < 1.9


def test_left_and_right_are_alike(body):
    reflected = body.vertices * torch.tensor([-1.0, 1, 1])
    distances = torch.cdist(reflected.double(), body.vertices.double())
    assert distances.min(dim=1).values.max() < 1e-5
    twin, swap = distances.argmin(dim=1), list(MIRRORED)
    torch.testing.assert_close(body.weights[twin][:, swap], body.weights, atol=1e-5, rtol=0)
    torch.testing.assert_close(body.vertex_shapes[:, twin] * torch.tensor([-1.0, 1, 1]), body.vertex_shapes)
    assert twin[body.landmarks].tolist() == body.landmarks[[0, 2, 1, 4, 3]].tolist()
    # So a mirrored pose makes a mirrored body.
    rotations, shape = drawn(3)
    vertices, joints = body(rotations, shape)
    vertices_too, joints_too = body(mirrored(rotations)[:, swap], shape)
    torch.testing.assert_close(vertices_too[:, twin] * torch.tensor([-1.0, 1, 1]), vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(joints_too[:, swap] * torch.tensor([-1.0, 1, 1]), joints, atol=1e-5, rtol=0)


def test_surface_of_a_ball_is_a_ball():
    points = np.stack(np.meshgrid(*[np.arange(-9.5, 10)] * 3, indexing='ij'), axis=-1)
    vertices, quads = surface(6 - np.linalg.norm(points, axis=-1))
    radii = np.linalg.norm(vertices - 9.5, axis=1)
    assert abs(radii - 6).max() < 0.2
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = (vertices - 9.5)[faces].transpose(1, 0, 2)
    assert (np.cross(a, b) * c).sum() / 6 == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.04)


def test_skinning_is_that_of_the_plain_formula(body):
    rotations, shape = drawn(2)
    vertices, joints = body(rotations, shape)
    for b in range(2):
        rest_vertices = body.vertices + sum(s * table for s, table in zip(shape[b], body.vertex_shapes))
        rest_joints = body.joints + sum(s * table for s, table in zip(shape[b], body.joint_shapes))
        transforms = []
        for joint, parent in enumerate(PARENTS):  # 4 x 4 along the chain
            own = torch.eye(4)
            own[:3, :3] = rotations[b, joint]
            own[:3, 3] = rest_joints[joint] - (rest_joints[parent] if parent >= 0 else 0)
            transforms.append(transforms[parent] @ own if parent >= 0 else own)
            torch.testing.assert_close(joints[b, joint], transforms[joint][:3, 3], atol=1e-5, rtol=0)
        for v in range(0, len(body.vertices), 97):
            moved = torch.zeros(3)
            for joint, transform in enumerate(transforms):
                local = torch.cat([rest_vertices[v] - rest_joints[joint], torch.ones(1)])
                moved += body.weights[v, joint] * (transform @ local)[:3]
            torch.testing.assert_close(vertices[b, v], moved, atol=1e-5, rtol=0)


def test_without_turns_a_body_is_at_rest(body):
    vertices, joints = body(NO_TURN[None], torch.zeros(1, 10))
    torch.testing.assert_close(vertices[0], body.vertices)
    torch.testing.assert_close(joints[0], body.joints)
    torch.testing.assert_close(body.weights.sum(dim=1), torch.ones(len(body.vertices)))


def test_a_joint_moves_what_hangs_on_it_alone(body):
    rotations = NO_TURN.clone()
    rotations[INDEX['left_elbow']] = matrix_from_axis_angle(torch.tensor([0, -1.5, 0]))
    vertices, joints = body(rotations[None], torch.zeros(1, 10))
    moved = (joints[0] - body.joints).norm(dim=1) > 1e-6
    assert [JOINTS[i] for i in moved.nonzero().flatten()] == ['left_wrist', 'left_hand']
    assert joints[0, INDEX['left_wrist'], 2] > 0.2  # the forearm points to the front
    moved = (vertices[0] - body.vertices).norm(dim=1) > 0.01
    assert (body.vertices[moved, 0] > body.joints[INDEX['left_elbow'], 0] - 0.1).all()
    assert moved[body.vertices[:, 0] > 0.6].all()


def test_the_pelvis_turns_the_whole_body(body):
    rotations, shape = drawn(1)
    turn = matrix_from_axis_angle(torch.tensor([0.3, -2.0, 0.5]))
    turned = rotations.clone()
    turned[:, 0] = turn @ rotations[:, 0]
    for before, after in zip(body(rotations, shape), body(turned, shape)):
        torch.testing.assert_close(after, before @ turn.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize('which', ['pose', 'shape', 'camera'])
def test_gradients_are_those_of_finite_differences(which):
    double = CapsuleBody().double()
    rotations, shape = (each.double() for each in drawn(1))
    inputs = dict(pose=matrix_to_6d(rotations), shape=shape, camera=torch.tensor([[0.8, 0.1, -0.2]]).double())
    inputs[which].requires_grad_()

    def seen(value):
        given = {**inputs, which: value}
        vertices, joints = double(matrix_from_6d(given['pose']), given['shape'])
        return project(vertices[:, ::50], given['camera']), project(double.keypoints(vertices, joints), given['camera'])

    assert torch.autograd.gradcheck(seen, (inputs[which],), fast_mode=True)


LENGTHS = dict(
    leg=('left_hip', 'left_ankle'),
    arm=('left_shoulder', 'left_wrist'),
    trunk=('pelvis', 'neck'),
    shoulders=('left_shoulder', 'right_shoulder'),
    hips=('left_hip', 'right_hip'),
)
GIRTHS = dict(
    waist=('spine1', 'spine2'),
    chest=('spine3', 'neck'),
    thigh=('left_hip', 'left_knee'),
    calf=('left_knee', 'left_ankle'),
    upper_arm=('left_shoulder', 'left_elbow'),
    forearm=('left_elbow', 'left_wrist'),
)


def measured(body, shape):
    """Lengths of a person in the T pose, and how far the skin is from the bones on average."""
    vertices, joints = (each[0] for each in body(NO_TURN[None], shape[None]))
    part = body.weights.argmax(dim=1)
    extent = np.ptp(vertices[part == INDEX['head']].numpy(), axis=0)
    found = dict(height=np.ptp(vertices[:, 1].numpy()), head=np.prod(extent) ** (1 / 3))
    for name, (start, end) in LENGTHS.items():
        found[name] = (joints[INDEX[start]] - joints[INDEX[end]]).norm().item()
    for name, (start, end) in GIRTHS.items():
        bone = torch.nn.functional.normalize(joints[INDEX[end]] - joints[INDEX[start]], dim=0)
        skin = vertices[part == INDEX[start]] - joints[INDEX[start]]
        found[name] = (skin - (skin @ bone)[:, None] * bone).norm(dim=1).mean().item()
    return found


@pytest.mark.parametrize(
    ('index', 'grown'),
    [
        (0, {'head', *LENGTHS, *GIRTHS}),
        (1, set(GIRTHS)),
        (2, set(GIRTHS) - {'waist'}),
        (3, {'leg'}),
        (4, {'arm'}),
        (5, {'trunk'}),
        (6, {'shoulders'}),
        (7, {'hips', 'thigh'}),
        (8, {'waist'}),
        (9, {'head'}),
    ],
    ids=['height', 'weight', 'muscles', 'legs', 'arms', 'trunk', 'shoulders', 'hips', 'belly', 'head'],
)
def test_a_shape_parameter_is_what_it_is_called(body, index, grown):
    before, after = measured(body, torch.zeros(10)), measured(body, torch.eye(10)[index])
    changes = {name: after[name] / before[name] - 1 for name in before}
    height = changes.pop('height')
    assert {name for name, change in changes.items() if change > 0.025} == grown  # some of it reaches what is beside it
    assert min(changes.values()) > -0.005
    assert (height > 0.003) == (index in (0, 3, 5, 9))  # legs, trunk and head are part of it
    assert index > 0 or height == pytest.approx(0.045, abs=2e-3)


def test_cocos_keypoints_are_joints_and_places_on_the_head(body):
    vertices, joints = body(NO_TURN[None], torch.zeros(1, 10))
    keypoints = body.keypoints(vertices, joints)[0]
    nose, left_eye, right_eye, left_ear, right_ear = keypoints[:5]
    assert nose[2] > left_eye[2] > left_ear[2]
    assert left_ear[0] > left_eye[0] > nose[0] > right_eye[0] > right_ear[0]
    assert [JOINTS[i] for i in COCO_JOINTS][:3] == ['left_shoulder', 'right_shoulder', 'left_elbow']
    torch.testing.assert_close(keypoints[15], joints[0, INDEX['left_ankle']])


def test_projection_is_weak_perspective():
    points = torch.tensor([[[0.1, -0.2, 5.0], [0.1, -0.2, -5.0]]])
    seen = project(points, torch.tensor([[2.0, 0.3, 0.1]]))
    torch.testing.assert_close(seen, torch.tensor([[[0.8, -0.2], [0.8, -0.2]]]))  # depth does not count


# Poses


def test_poses_are_people_before_the_camera(body):
    rotations, shape = drawn(200)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(200, 24), atol=1e-4, rtol=0)
    _, joints = body(rotations, shape)
    head, feet = joints[:, INDEX['head'], 1], joints[:, INDEX['left_foot'], 1]
    assert (head < feet).float().mean() > 0.98  # y is down
    # A knee bends to the back: in the thigh's coordinates the shin never points to the front by more than some degrees.
    knees = rotations[:, [INDEX['left_knee'], INDEX['right_knee']]]
    assert (knees[..., 2, 1] > -0.15).all()  # what was up has no part to the back


def test_the_mean_pose_stands_upright_and_looks_at_the_camera(body):
    vertices, joints = body(mean_pose()[None], torch.zeros(1, 10))
    assert joints[0, INDEX['head'], 1] < -0.5
    nose, left_ear = vertices[0, body.landmarks[0]], vertices[0, body.landmarks[3]]
    assert nose[2] < left_ear[2]  # nearer to the camera
    assert left_ear[0] > nose[0]  # a person's left is on the right of the image


# Anny


class StandIn:
    """A person of few vertices with Anny's interface: arms that hang down aslant, z up, facing along -y."""

    phenotype_labels = ('gender', 'age', 'height')

    def __init__(self, labels=None, corners=3):
        names = [name.split('.')[0] for name in BONES.values()]
        spread = {'upperarm01': 0.2, 'lowerarm01': 0.4, 'wrist': 0.6, 'finger3-1': 0.7}
        self.bone_labels = labels or [*BONES.values(), 'eye.L', 'eye.R', 'finger3-2.L']
        number = {bone: i for i, bone in enumerate(self.bone_labels)}
        self.bone_parents = []
        self.heads = torch.zeros(len(self.bone_labels), 3)
        for bone in self.bone_labels:
            joint = next((joint for joint, own in BONES.items() if own == bone), None)
            parent = JOINTS[PARENTS[INDEX[joint]]] if joint and joint != 'pelvis' else None
            above = 'finger3-1.L' if bone == 'finger3-2.L' else 'head' if 'eye' in bone else BONES.get(parent)
            self.bone_parents.append(number.get(above, -1))
            name, _, side = bone.partition('.')
            sign = {'L': 1.0, 'R': -1.0}.get(side, 0.0)
            out = spread.get(name, 0.1 if side else 0.0)
            height = 1.5 - out if name in spread else 0.9 + 0.02 * names.index(name) if name in names else 1.7
            self.heads[number[bone]] = torch.tensor([sign * out, -0.1 if 'eye' in name else 0.0, height])
        # A vertex at each bone, one of them in front of it.
        self.vertex_bone_indices = torch.arange(len(self.heads)).repeat(2)[:, None]
        self.vertex_bone_weights = torch.ones(2 * len(self.heads), 1)
        self.faces = torch.arange(2 * corners).reshape(2, corners)

    def __call__(self, phenotype_kwargs):
        size = (1 + 0.2 * (phenotype_kwargs['height'] - 0.5) + 0.02 * phenotype_kwargs['gender'])[:, None, None]
        heads = self.heads * size
        vertices = torch.cat([heads, heads + size * torch.tensor([0, -0.05, 0])], dim=1)
        return dict(rest_vertices=vertices, rest_bone_heads=heads)


def test_anny_becomes_a_body_in_the_t_pose():
    model = StandIn()
    tables = anny_tables(model, people=16)
    number = {bone: i for i, bone in enumerate(model.bone_labels)}
    body = Body(tables)
    vertices, joints = body(NO_TURN[None], torch.zeros(1, 10))
    torch.testing.assert_close(joints[0, 0], torch.zeros(3))
    for name in ('elbow', 'wrist', 'hand'):  # along x, where the shoulder is
        for side, sign in (('left', 1), ('right', -1)):
            bone = joints[0, INDEX[f'{side}_{name}']] - joints[0, INDEX[f'{side}_shoulder']]
            assert bone[0] * sign > 0.1
            torch.testing.assert_close(bone[1:], torch.zeros(2), atol=1e-5, rtol=0)
    # The vertex on a joint is where the joint is; y is up and z to the front.
    elbow = number['lowerarm01.L']
    torch.testing.assert_close(vertices[0, elbow], joints[0, INDEX['left_elbow']], atol=1e-5, rtol=0)
    head = vertices[0, [number['head'], number['head'] + len(number)]]
    assert head[1, 2] > head[0, 2]
    assert head[0, 1] > 0.1
    assert tables.weights[number['finger3-2.L'], INDEX['left_hand']] == 1
    assert tables.weights[number['eye.R'], INDEX['head']] == 1


def test_annys_people_are_sums_of_its_components():
    model = StandIn()
    tables = anny_tables(model, people=16)
    # All that differs here is size: the first component holds it all, one standard deviation of it.
    sizes = np.linalg.norm(tables.joint_shapes, axis=(1, 2))
    assert sizes[1:].max() < 1e-4 * sizes[0]
    tall = np.ptp(tables.vertices[:, 1])
    change = abs(np.ptp((tables.vertices + tables.vertex_shapes[0])[:, 1]) / tall - 1)
    assert 0.005 < change < 0.04  # height is drawn from 0.35 to 0.65: 0.017 of the size, gender adds little


def test_annys_components_do_not_depend_on_the_sign_of_eigenvectors(monkeypatch):
    before = anny_tables(StandIn(), people=16)
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, 'eigh', lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    after = anny_tables(StandIn(), people=16)
    for name, table in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), table)
    # The largest change of the left half is a gain: the first component makes taller.
    assert np.ptp((before.vertices + before.vertex_shapes[0])[:, 1]) > np.ptp(before.vertices[:, 1])


def test_another_rig_of_annys_and_none_at_all_are_refused(monkeypatch):
    with pytest.raises(UserError, match='no bone root: take anny.Anny'):
        anny_tables(StandIn(labels=['Hips']))
    with pytest.raises(UserError, match='faces of 4 corners'):
        anny_tables(StandIn(corners=4))
    monkeypatch.setitem(sys.modules, 'anny', None)
    _installed_tables.cache_clear()
    with pytest.raises(UserError, match='pip install -r projects/human_mesh/requirements.txt'):
        AnnyBody()


def test_annybody_is_made_of_what_anny_builds(monkeypatch):
    model = StandIn()
    monkeypatch.setattr(StandIn, 'float', lambda self: self, raising=False)
    monkeypatch.setitem(sys.modules, 'anny', SimpleNamespace(Anny=lambda: model))
    _installed_tables.cache_clear()
    assert len(AnnyBody().vertices) == 2 * len(model.bone_labels)
    _installed_tables.cache_clear()


def test_tables_of_other_sizes_are_refused():
    tables = dict(vars(capsule_tables()))
    with pytest.raises(ValueError, match=r'weights of a body must be \(\d+, 24\)'):
        type(capsule_tables())(**{**tables, 'weights': tables['weights'][:, :22]})
