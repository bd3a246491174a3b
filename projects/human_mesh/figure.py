"""Draw the figure of the bodies: one from three sides, shapes, and images of the data with their keypoints.

    python projects/human_mesh/figure.py --out projects/human_mesh/bodies.png

It also says how fast images are drawn, in the processor's time of one thread.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the projects

from projects.human_mesh.bodies import Body, CapsuleBody  # noqa: E402
from projects.human_mesh.bodies.drawing import MESH, from_the_side, paint_mesh  # noqa: E402
from projects.human_mesh.bodies.poses import mean_pose  # noqa: E402
from projects.human_mesh.bodies.skeleton import SHAPES  # noqa: E402
from projects.human_mesh.synthetic import draw_body  # noqa: E402
from scopevit.apis.painter import require_writable_figure  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import user_errors  # noqa: E402
from scopevit.utils.image import write_image  # noqa: E402

TILE = 192  # pixels, the side of a tile
COLUMNS = 8


def portrait(body: Body, vertices: np.ndarray) -> np.ndarray:
    """A body on a plain ground: (TILE, TILE, 3)."""
    image, faces = np.full((TILE, TILE, 3), 245, np.uint8), body.faces.numpy()
    scale = TILE / 2.15
    paint_mesh(image, vertices, faces, vertices[:, :2] * scale + TILE * 0.46, np.full((len(faces), 3), MESH, float))
    return image


def portraits(body: Body) -> list[np.ndarray]:
    """The mean body from the front and the side, and six of its shape parameters at three standard deviations."""

    def vertices(shape: torch.Tensor) -> np.ndarray:
        return body(mean_pose()[None], shape[None])[0][0].numpy()

    with torch.no_grad():
        mean = vertices(torch.zeros(SHAPES))
        shapes = [vertices(3 * torch.eye(SHAPES)[i]) for i in (0, 1, 3, 5, 6, 8)]
    return [portrait(body, each) for each in (mean, from_the_side(mean), *shapes)]


def sample(body: Body, index: int) -> np.ndarray:
    """An image of the data, its keypoints marked: those that are seen red, those behind something blue."""
    drawn = draw_body(0, 0, index, body)
    enlarge = TILE // len(drawn.image)
    image = cv2.resize(drawn.image, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_NEAREST)
    for x, y, seen in drawn.keypoints:
        if seen:
            place = (round((x + 0.5) * enlarge), round((y + 0.5) * enlarge))
            cv2.circle(image, place, 2, (40, 40, 235) if seen == 2 else (235, 120, 40), -1, cv2.LINE_AA)
    return image


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--out', default='projects/human_mesh/bodies.png')
    args = parser.parse_args()
    with user_errors():
        require_writable_figure(args.out)
        body = CapsuleBody()
        tiles = portraits(body)
        begin = time.process_time()
        tiles += [sample(body, i) for i in range(COLUMNS)]
        milliseconds = 1000 * (time.process_time() - begin) / COLUMNS
        rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
        write_image(args.out, np.concatenate(rows))
        print(f'{len(body.vertices):,} vertices, {len(body.faces):,} triangles; {milliseconds:.1f} ms for an image')


if __name__ == '__main__':
    main()
