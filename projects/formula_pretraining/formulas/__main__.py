"""Draw instances of some classes of formulas, and measure how fast they are made.

    PYTHONPATH=. python -m projects.formula_pretraining.formulas --out formulas.png

Each row of the figure has the families' classes of one number, a few instances of each.
"""

import time
from itertools import count

import cv2
import numpy as np

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file
from scopevit.utils.image import write_image

from . import FAMILIES, make_image

INSTANCES = 6  # of a class in the figure
GAP = 2  # pixels between images


def sheet(rows: int, size: int, seed: int) -> np.ndarray:
    """Instances of the first classes of each family, (H, W, 3)."""
    side = size + GAP
    found = np.full((rows * side - GAP, len(FAMILIES) * INSTANCES * side - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for i, family in enumerate(FAMILIES):
            for index in range(INSTANCES):
                y, x = row * side, (i * INSTANCES + index) * side
                found[y : y + size, x : x + size] = make_image(family, row, index, size, seed)
    return found


def rate(family: str, size: int, seconds: float = 2.0, classes: int = 50) -> float:
    """Images a second on one core, once the classes are known."""
    for number in range(classes):
        make_image(family, number, 0, size)
    start = time.process_time()
    for made in count(1):
        make_image(family, made % classes, made, size)
        spent = time.process_time() - start
        if spent > seconds:
            return made / spent
    raise AssertionError


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--out', default='formulas.png')
    add_arguments(parser, '--size', default=(48, 48), help='side of the images in pixels (default: 48)')
    add_arguments(parser, '--seed')
    rows_help = 'classes of each family in the figure (default: %(default)s)'
    parser.add_argument('--rows', type=positive, default=6, metavar='N', help=rows_help)
    args = parser.parse_args()
    with user_errors():
        if args.size[0] != args.size[1]:
            raise UserError('--size takes one number: the images are squares')
        require_writable_file(args.out, '--out')
        write_image(args.out, sheet(args.rows, args.size[0], args.seed))
        cv2.setNumThreads(1)
        for family in FAMILIES:
            rates = ', '.join(f'{rate(family, size):.0f} at {size}' for size in (32, 64, 128))
            print(f'{family}: images a second on one core, by their side in pixels: {rates}')


if __name__ == '__main__':
    main()
