"""Make small synthetic scenes with labels for every task, in the layouts of ImageNet, COCO and ADE20K.

    python projects/scenes/make_scenes.py                   # all three under data/scenes
    python projects/scenes/make_scenes.py --only coco --count 50 20 --out-dir /tmp/scenes

The result depends on the seed, the counts and the enlargement alone. A data set that is there already is left as
it is; a folder that holds anything else is never touched.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for this project's generator

from projects.scenes.generator import write_ade20k, write_coco, write_imagenet  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors

# Folder, function, and images for training and validation as the configs for scenes expect them.
DATASETS = {
    'imagenet': ('imagenet', write_imagenet, (12000, 500)),
    'coco': ('coco', write_coco, (3200, 200)),
    'ade20k': ('ade/ADEChallengeData2016', write_ade20k, (2400, 200)),
}


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--out-dir', default='data/scenes')
    add_arguments(parser, '--seed')
    parser.add_argument('--only', nargs='+', choices=DATASETS, default=list(DATASETS), help='data sets (default: all)')
    usual = ', '.join(f'{name} {train} {val}' for name, (_, _, (train, val)) in DATASETS.items())
    counts = dict(nargs=2, type=int, metavar=('TRAIN', 'VAL'))
    add_arguments(parser, '--count', help=f'how many images (default: {usual})', **counts)
    enlarge = "times the height and width; 3 gives photographs' sizes (default: %(default)s)"
    parser.add_argument('--enlarge', type=int, default=1, metavar='N', help=enlarge)
    args = parser.parse_args()
    with user_errors():
        if args.seed < 0 or args.enlarge < 1 or min(args.count or (1,)) < 1:
            raise UserError('--seed must be at least 0, --count and --enlarge at least 1')
        for name in args.only:
            folder, write, counts = DATASETS[name]
            path = os.path.join(args.out_dir, folder)
            train, val = args.count or counts
            start = time.time()
            if write(path, args.seed, train, val, args.enlarge):
                print(f'{path}: {train} images to train with, {val} to validate, in {time.time() - start:.0f} s')
            else:
                print(f'{path} is there already')


if __name__ == '__main__':
    main()
