"""Estimate the bodies in images, and draw their meshes over them.

    PYTHONPATH=. python projects/human_mesh/predict.py CONFIG CHECKPOINT photo.jpg --box 40 20 90 200 --out mesh.png
    PYTHONPATH=. python projects/human_mesh/predict.py CONFIG CHECKPOINT --bodies 6 --out mesh.png

Each row of the figure has the image, the mesh over it, and the mesh from the side. Images are of one person each, in
the box or as large as the image. --bodies draws held-out bodies, of which the errors are printed. --json has pose,
shape, camera, joints and vertices.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's modules

from projects.human_mesh.bodies.drawing import from_the_side, over_image  # noqa: E402
from projects.human_mesh.metrics import errors  # noqa: E402
from projects.human_mesh.synthetic import draw_body  # noqa: E402
from scopevit.apis.inferencer import PoseEstimator, build_predictor  # noqa: E402
from scopevit.apis.painter import require_writable_figure  # noqa: E402
from scopevit.apis.people import whole_image  # noqa: E402
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.config import load_config  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402
from scopevit.utils.files import require_writable_file, write_json  # noqa: E402
from scopevit.utils.image import write_image  # noqa: E402
from scopevit.utils.silence import silence_toolboxes  # noqa: E402

HEIGHT = 360  # pixels of a row of the figure


def in_image(points: np.ndarray, metainfo: dict) -> np.ndarray:
    """Where points (N, 2) of a crop, whose edges are at -1 and 1, are in the image: (N, 2), in its pixels."""
    return metainfo['input_center'] + points * metainfo['input_scale'] / 2


def estimate(predictor: PoseEstimator, image: np.ndarray, box: np.ndarray) -> dict:
    """The body in a box (4,), left, top, right, bottom; ``pixels`` (V, 2) are where its vertices are in the image."""
    (sample,) = predictor.run(image, predictor.info(box.astype(np.float32)))
    found = sample.pred_instances
    names = ('rotations', 'shape', 'camera', 'joints', 'vertices', 'keypoints')
    body = {name: np.asarray(found[name][0]) for name in names}
    scale, *shift = body['camera']
    return dict(body, pixels=in_image(scale * (body['vertices'][:, :2] + shift), sample.metainfo))


def row(image: np.ndarray, found: dict, faces: np.ndarray) -> np.ndarray:
    """An image, the mesh over it, and the mesh from the side: (HEIGHT, W, 3)."""
    height, width = image.shape[:2]
    enlarge = max(1, round(HEIGHT / height))
    pixels, vertices = found['pixels'], found['vertices']
    front = over_image(image, vertices, faces, pixels, enlarge)
    # As large as in the image, in the middle of a plain one of the same size.
    side = from_the_side(vertices)
    scale = np.ptp(pixels[:, 1]) / np.ptp(vertices[:, 1])
    middle = (side[:, :2].min(axis=0) + side[:, :2].max(axis=0)) / 2
    places = (side[:, :2] - middle) * scale + (width / 2, height / 2)
    aside = over_image(np.full_like(image, 235), side, faces, places, enlarge)
    plain = cv2.resize(image, front.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    figure = np.concatenate([plain, front, aside], axis=1)
    return cv2.resize(figure, (round(figure.shape[1] * HEIGHT / figure.shape[0]), HEIGHT), interpolation=cv2.INTER_AREA)


def stack(rows: list[np.ndarray]) -> np.ndarray:
    """Rows one below the other, the narrower ones with white beside them."""
    width = max(image.shape[1] for image in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def box_of(image: np.ndarray, given: list[float] | None, path: str) -> np.ndarray:
    """Corners (4,) of the box that is given as x, y, width and height, or of the image.

    Raises:
        UserError: If it is not in the image.
    """
    if given is None:
        return whole_image(image, path)[0][0]
    x, y, wide, high = given
    height, width = image.shape[:2]
    if wide <= 0 or high <= 0 or x >= width or y >= height or x + wide <= 0 or y + high <= 0:
        raise UserError(f'--box {x:g} {y:g} {wide:g} {high:g} is not in {path}, which has {width}x{height} pixels')
    return np.array([x, y, x + wide, y + high])


def error_of(found: dict, ground_truth: tuple[np.ndarray, np.ndarray]) -> str:
    """The errors against the vertices and joints of the ground truth, in words."""
    those = (torch.from_numpy(each)[None] for each in (found['vertices'], found['joints'], *ground_truth))
    return ', '.join(f'{name} {value.item():.0f} mm' for name, value in errors(*those).items())


def predict(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    predictor = build_predictor(cfg, args.checkpoint, args.device)
    body = getattr(getattr(predictor.model, 'head', None), 'body', None)
    if body is None:
        raise UserError(f'{args.config} has no BodyHead: take a config of projects/human_mesh/configs')
    faces = body.faces.cpu().numpy()
    rows, said = [], []
    for path in args.images:
        try:
            image = predictor.read(path)
        except UserError as error:
            raise UserError(f'{path} {error}') from error
        found = estimate(predictor, image, box_of(image, args.box, path))
        rows.append(row(image, found, faces))
        said.append(dict(image=path, **found))
    for i in range(args.bodies):
        drawn = draw_body(args.seed, 1, i, body.cpu())
        body.to(predictor.device)
        found = estimate(predictor, drawn.image, drawn.box)
        print(f'body {i}: {error_of(found, (drawn.vertices, drawn.joints))}')
        rows.append(row(drawn.image, found, faces))
        said.append(dict(image=f'body {i}', **found))
    write_image(args.out, stack(rows))
    if args.json:
        plain = [{key: value.tolist() if hasattr(value, 'tolist') else value for key, value in s.items()} for s in said]
        write_json(args.json, plain, indent=None)


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint')
    add_arguments(parser, 'images', nargs='*', help='image files, of one person each')
    parser.add_argument('--bodies', type=positive, default=0, metavar='N', help='held-out bodies (default: none)')
    add_arguments(parser, '--box')
    add_arguments(parser, '--out', default='mesh.png')
    add_arguments(parser, '--json', help='write what is estimated (default: it is only drawn)')
    add_arguments(parser, '--seed', help='of the held-out bodies (default: %(default)s)')
    add_arguments(parser, '--device')
    return parser.parse_intermixed_args()  # images may also stand after options


def main() -> None:
    with user_errors():
        args = parse_args()
        silence_toolboxes()
        if not args.images and not args.bodies:
            raise UserError('name images, or take --bodies N')
        if args.box and len(args.images) != 1:
            raise UserError('--box is for one image')
        require_writable_figure(args.out)
        if args.json:
            require_writable_file(args.json, '--json')
        predict(args)


if __name__ == '__main__':
    main()
