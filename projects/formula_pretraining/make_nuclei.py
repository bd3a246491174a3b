"""Make a small segmentation data set of nuclei from the microscopy image in the package stardist.

    pip download --no-deps stardist==0.9.2 && python -m zipfile -e stardist-0.9.2-*.whl stardist
    PYTHONPATH=. python projects/formula_pretraining/make_nuclei.py stardist/stardist/data/images

It is an image of 512x512 pixels with 125 nuclei, of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019).
Three quarters become overlapping tiles for training, the lower right quarter four tiles to validate with.
"""

import itertools
import os

import cv2
import numpy as np

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_folder
from scopevit.utils.image import write_image

FILES = ('img2d.tif', 'mask2d.tif')
SIDE = 512  # of the image, in pixels
TILE = 128
# Left upper corners of the quarters, and the step between tiles
SPLITS = {'train': (((0, 0), (256, 0), (0, 256)), 32), 'val': (((256, 256),), 128)}
WHITE = 235  # the image's brightest value


def make(source: str, out: str) -> None:
    """Write images in three channels, and masks of 0 (background) and 1 (nucleus).

    Raises:
        UserError: If the files cannot be read or are others.
    """
    image, mask = (cv2.imread(os.path.join(source, name), cv2.IMREAD_UNCHANGED) for name in FILES)
    if image is None or mask is None or image.shape != (SIDE, SIDE) or mask.shape != (SIDE, SIDE):
        raise UserError(f'{" and ".join(FILES)} in {source} are not those of stardist 0.9.2')
    grey = np.rint(np.clip(image * (255 / WHITE), 0, 255)).astype(np.uint8)
    for split, (corners, step) in SPLITS.items():
        steps = range(0, SIDE // 2 - TILE + 1, step)
        places = [(left + x, top + y) for left, top in corners for y in steps for x in steps]
        for x, y in places:
            part, name = np.s_[y : y + TILE, x : x + TILE], f'{x}_{y}.png'
            write_image(f'{out}/images/{split}/{name}', cv2.cvtColor(grey[part], cv2.COLOR_GRAY2BGR))
            write_image(f'{out}/masks/{split}/{name}', (mask[part] > 0).astype(np.uint8))
        print(f'{split}: {len(places)} images')


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('source', metavar='SOURCE', help='the folder data/images of the package stardist')
    add_arguments(parser, '--out-dir', default='data/nuclei')
    args = parser.parse_args()
    with user_errors():
        missing = [name for name in FILES if not os.path.isfile(os.path.join(args.source, name))]
        if missing:
            raise UserError(f'{args.source} has no {missing[0]}; give data/images of the unpacked package stardist')
        for kind, split in itertools.product(('images', 'masks'), SPLITS):
            require_writable_folder(f'{args.out_dir}/{kind}/{split}', '--out-dir')
        make(args.source, args.out_dir)


if __name__ == '__main__':
    main()
