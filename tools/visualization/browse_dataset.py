"""Draw samples of a config's data set as training sees them: the image, and beside it the image with its labels.

    python tools/visualization/browse_dataset.py CONFIG --out samples.png

Works with configs of any task (a class is written into its image); look here before a long training. Of images that
are turned or lose depth when they are read that is said.
"""

import random
import sys

from scopevit.utils.arguments import add_arguments, positive, tool_parser
from scopevit.utils.errors import user_errors
from scopevit.utils.silence import silence_toolboxes


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    parser.add_argument(
        '--split', choices=('train', 'val', 'test'), default='train', help='which data (default: %(default)s)'
    )
    add_arguments(parser, '--out', default='samples.png')
    add_arguments(parser, '--count', default=16)
    parser.add_argument(
        '--cols', type=positive, metavar='N', help='images in a row (default: 4 of a classifier, else 2)'
    )
    add_arguments(parser, '--seed', help='random seed, by which they are chosen (default: %(default)s)')
    args = parser.parse_args()

    from scopevit.apis.painter import Painter, require_writable_figure, save_grid
    from scopevit.checks.loading import build_dataset
    from scopevit.checks.training import check_chosen
    from scopevit.utils.config import load_config
    from scopevit.utils.image import unreadable_files_named

    silence_toolboxes()
    cfg = load_config(args.config, args.cfg_options)
    require_writable_figure(args.out)
    dataset = build_dataset(cfg, args.split, args.config)
    painter = Painter(cfg, dataset)
    chosen = sorted(random.Random(args.seed).sample(range(len(dataset)), min(args.count, len(dataset))))
    for finding in check_chosen(args.split, dataset, chosen):
        print(f'{"warning" if finding.is_problem else "note"}: {finding}', file=sys.stderr)
    with unreadable_files_named():
        items = [painter.sample(i) for i in chosen]
    save_grid(items, args.cols or 4 // len(items[0]), args.out)
    print(f'wrote {args.out}: {len(chosen)} of {len(dataset)} samples')


if __name__ == '__main__':
    main()
