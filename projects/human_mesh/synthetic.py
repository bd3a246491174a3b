"""Images of bodies before the scenes' backgrounds, with all that there is to know about them."""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from projects.scenes.generator.compose import Canvas, Thing
from projects.scenes.generator.shapes import OBJECTS, random_color, shade

from .bodies.body import Body, project
from .bodies.drawing import paint_mesh
from .bodies.poses import draw_pose, draw_shape
from .bodies.skeleton import INDEX, JOINTS

SIZE = 96  # height and width of an image in pixels
TALL = (0.6, 0.9)  # longer side of a body, in that of the image
STREAM = 101  # keeps this generator's random numbers apart from those of the scenes


@dataclass
class PosedBody:
    """An image with one body, exactly labelled.

    Coordinates in the image are x and y in its pixels, of which the middle of the first is (0, 0).

    Attributes:
        image: (H, W, 3), BGR.
        rotations: (24, 3, 3) of the joints.
        shape: (10,).
        camera: (3,): pixels in a metre, and the shift along x and y in metres that comes before that.
        vertices: (V, 3) in metres, camera coordinates, the pelvis in the origin.
        joints: (24, 3), the same.
        keypoints: (17, 3), COCO's: x, y, and 2 where it is seen, 1 where something is before it, 0 outside the image.
        box: (4,), what is inside the image: left, top, right, bottom.
        mask: (H, W), the pixels of the body that are seen.
    """

    image: np.ndarray
    rotations: np.ndarray
    shape: np.ndarray
    camera: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray
    mask: np.ndarray


class BodyCanvas(Canvas):
    """A scene in which a mesh can stand among the scenes' objects."""

    def add_mesh(
        self, body: Body, vertices: np.ndarray, pixels: np.ndarray, colors: np.ndarray, keypoints: np.ndarray
    ) -> Thing:
        """Paint a body; arguments are those of :func:`paint_mesh` and the keypoints (17, 3)."""
        layer = np.zeros((self.height, self.width, 3), np.uint8)
        light = self.rng.uniform((-0.8, -0.9, -1.0), (0.8, -0.2, -0.4))
        paint_mesh(layer, vertices, body.faces.numpy(), pixels, colors, light)
        seen = layer.any(axis=2)
        self.scene.image[seen] = layer[seen] + self.wear[seen]
        self.scene.unlabelled &= ~seen
        # The scenes' pixels have their middles at 0.5.
        thing = Thing('person', seen, np.count_nonzero(seen), keypoints + (0.5, 0.5, 0))
        self.scene.things.append(thing)
        return thing


@functools.cache
def face_parts(body: Body) -> np.ndarray:
    """The joint (F,) that each triangle follows most; ``len(JOINTS)`` where the head has hair."""
    corners = body.faces.numpy()
    parts = body.weights.numpy()[corners].sum(axis=1).argmax(axis=1)
    head = body.joints[INDEX['head']].numpy()
    x, y, z = (body.vertices.numpy()[corners].mean(axis=1) - head).T
    height = body.vertices[:, 1].max().item() - head[1]
    is_hair = (parts == INDEX['head']) & ((y > 0.72 * height) | ((z < 0.25 * height) & (y > 0)))
    return np.where(is_hair, len(JOINTS), parts)


def dress(rng: np.random.Generator, body: Body) -> np.ndarray:
    """Colours (F, 3) of skin, hair and clothes at random."""
    skin, hair = shade((150, 185, 225), rng.uniform(0.35, 1.1)), shade((60, 90, 130), rng.uniform(0.15, 1.3))
    shirt, trousers, shoes = random_color(rng), random_color(rng), shade(random_color(rng), 0.5)
    sleeves, legs = (shirt if rng.random() < 0.5 else skin), (trousers if rng.random() < 0.7 else skin)
    of_joints = {
        'pelvis': trousers, 'hip': trousers, 'knee': legs, 'ankle': shoes, 'foot': shoes, 'elbow': sleeves,
        'wrist': skin, 'hand': skin, 'neck': skin, 'head': skin,
    }  # fmt: skip
    colors = [of_joints.get(name.removeprefix('left_').removeprefix('right_'), shirt) for name in JOINTS]
    return np.array([*colors, hair], float)[face_parts(body)]


def draw_parameters(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations (24, 3, 3) and shape (10,) of an image, the first that is drawn of it."""
    return draw_pose(rng), draw_shape(rng)


def numbers(seed: int, split: int, index: int) -> np.random.Generator:
    """The random numbers of an image.

    Args:
        seed: Of the data set.
        split: Images of splits have nothing in common.
        index: Which image of the split.
    """
    return np.random.default_rng([seed, STREAM, split, index])


def draw_body(seed: int, split: int, index: int, body: Body) -> PosedBody:
    """The image of a number with a body in it, the same wherever and in whatever order it is asked for.

    Arguments are those of :func:`numbers`, and the body that stands in it.
    """
    rng = numbers(seed, split, index)
    rotations, shape = draw_parameters(rng)
    with torch.no_grad():
        vertices, joints = body(rotations[None], shape[None])
        points = body.keypoints(vertices, joints)
    low, high = (limit(vertices[0, :, :2].numpy(), axis=0) for limit in (np.min, np.max))
    # The longer side of what is seen decides how large a body is shown; nobody is shown larger for crouching.
    scale = SIZE * rng.uniform(*TALL) / max((high - low).max(), 1.5)
    room = np.maximum(SIZE - scale * (high - low), 0.1 * SIZE)
    corner = (SIZE - scale * (high - low) - room) / 2 + room * rng.uniform(-0.1, 1.1, 2)  # some are cut off
    camera = torch.from_numpy(np.array([scale, *(corner / scale - low)])).float()[None]
    pixels = project(vertices, camera)[0].numpy()
    keypoints = np.concatenate([project(points, camera)[0].numpy(), np.zeros((17, 1))], axis=1)
    keypoints[:, 2] = 2 * ((keypoints[:, :2] >= 0) & (keypoints[:, :2] <= SIZE - 1)).all(axis=1)

    canvas = BodyCanvas(rng, SIZE, SIZE)
    canvas.add_clutter(rng.uniform(10, 40))
    thing = canvas.add_mesh(body, vertices[0].numpy(), pixels, dress(rng, body), keypoints)
    if rng.random() < 0.3:  # something before it
        canvas.add_thing(str(rng.choice([name for name in OBJECTS if name != 'person'])), rng.uniform(12, 32))
    scene = canvas.finish()
    edges = np.clip(np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]), 0, SIZE - 1)
    return PosedBody(
        image=scene.image,
        rotations=rotations.numpy(),
        shape=shape.numpy(),
        camera=camera[0].numpy(),
        vertices=vertices[0].numpy(),
        joints=joints[0].numpy(),
        keypoints=thing.keypoints - (0.5, 0.5, 0),
        box=edges.astype(np.float32),
        mask=thing.mask,
    )
