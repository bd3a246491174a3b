"""Put ScopeViT in place of the backbone of a config of any of the four toolboxes.

    python tools/swap_backbone.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --out retinanet_scopevit.py

Without --out or --show-diff it prints which settings change. The new config is built and run on
a small batch before anything is written.
"""

import sys

from scopevit.utils.arguments import ARCHS, add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_new_file
from scopevit.utils.toolboxes import toolbox_of


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    parser.add_argument('--arch', choices=ARCHS, default='tiny', help='which ScopeViT (default: %(default)s)')
    output = parser.add_mutually_exclusive_group()
    add_arguments(output, '--out', help='new config to write, complete in itself (.py; default: list what changes)')
    output.add_argument('--show-diff', action='store_true', help='print both configs in full, compared line by line')
    args = parser.parse_args()

    from scopevit.swap import list_changes, list_notes, show_diff, split_options, swap_backbone, write_config
    from scopevit.utils.config import load_config

    if args.out is not None:
        if not args.out.endswith('.py'):
            raise UserError(f'--out writes a Python config: its name must end with .py, but is {args.out}')
        require_new_file(args.out, '--out')
    own, others = split_options(args.cfg_options)
    old = load_config(args.config, others)
    new = swap_backbone(old, own.pop('arch', args.arch), scope=toolbox_of(args.config), **own)
    if args.out is not None:
        write_config(new, args.out)
        print(f'Wrote {args.out}: built, and run on a small batch')
    elif args.show_diff:
        print(show_diff(old, new))
    else:
        print('\n'.join(list_changes(old, new)))
    for note in list_notes(new):  # beside a diff or a list, which may be read by programs
        print(f'note: {note}', file=sys.stderr)


if __name__ == '__main__':
    main()
