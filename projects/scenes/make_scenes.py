"""Make small synthetic scenes with labels for every task, in the layouts of ImageNet, COCO and ADE20K.

    python projects/scenes/make_scenes.py                   # all three under data/scenes
    python projects/scenes/make_scenes.py --only coco --count 50 20 --out /tmp/scenes

The result depends on the seed, the counts and the enlargement alone. A data set that is there already is left as
it is; a folder that holds anything else is never touched.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for this project's generator

from projects.scenes.generator import write_ade20k, write_coco, write_imagenet  # noqa: E402
from scopevit.utils.errors import UserError, user_errors

# Folder, function, and images for training and validation as the configs for scenes expect them.
DATASETS = {
    'imagenet': ('imagenet', write_imagenet, (12000, 500)),
    'coco': ('coco', write_coco, (3200, 200)),
    'ade20k': ('ade/ADEChallengeData2016', write_ade20k, (2400, 200)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default='data/scenes', help='folder to write to (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='+', choices=DATASETS, default=list(DATASETS), help='which data sets')
    parser.add_argument('--count', nargs=2, type=int, metavar=('TRAIN', 'VAL'), help='images, instead of the usual')
    parser.add_argument(
        '--enlarge', type=int, default=1, metavar='N', help="N times the height and width; 3 gives photographs' sizes"
    )
    args = parser.parse_args()
    with user_errors():
        if args.seed < 0 or args.enlarge < 1 or min(args.count or (1,)) < 1:
            raise UserError('--seed must be at least 0, --count and --enlarge at least 1')
        for name in args.only:
            folder, write, counts = DATASETS[name]
            path = os.path.join(args.out, folder)
            train, val = args.count or counts
            start = time.time()
            if write(path, args.seed, train, val, args.enlarge):
                print(f'{path}: {train} images to train with, {val} to validate, in {time.time() - start:.0f} s')
            else:
                print(f'{path} is there already')


if __name__ == '__main__':
    main()
