"""Draw samples of a config's data set as training sees them: the image, and beside it the image with its labels.

    python tools/visualization/browse_dataset.py CONFIG --out samples.png

Works with configs of any task (a class is written into its image); look here before a long training.
"""

import argparse
import random

from mmengine.registry import init_default_scope

from scopevit.apis.painter import Painter, check_figure, save_grid
from scopevit.checks.loading import build_dataset
from scopevit.utils.arguments import positive
from scopevit.utils.config import add_config_options, load_config
from scopevit.utils.errors import UserError, user_errors


def browse(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    if cfg.get(f'{args.split}_dataloader') is None:
        raise UserError(f'config {args.config} has no {args.split}_dataloader')
    check_figure(args.out)
    init_default_scope(cfg.get('default_scope'))
    dataset = build_dataset(cfg, args.split, args.config)
    painter = Painter(cfg, dataset)
    chosen = sorted(random.Random(args.seed).sample(range(len(dataset)), min(args.number, len(dataset))))
    items = [painter.sample(i) for i in chosen]
    save_grid(items, args.cols or 4 // len(items[0]), args.out)
    print(f'wrote {args.out}: {len(chosen)} of {len(dataset)} samples')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or a config of an installed toolbox such as mmdet::...')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--out', default='samples.png', help='figure to write (default: %(default)s)')
    parser.add_argument('--number', type=positive, default=16, help='how many samples (default: %(default)s)')
    parser.add_argument('--cols', type=positive, help='samples in a row (default: 4 of a classifier, else 2)')
    parser.add_argument('--seed', type=int, default=0, help='which samples are drawn')
    add_config_options(parser)
    args = parser.parse_args()
    with user_errors():
        browse(args)


if __name__ == '__main__':
    main()
