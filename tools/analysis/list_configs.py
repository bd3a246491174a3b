"""List the configs of this package with their parameters, multiply-accumulates and results, or the backbones.

    scopevit list                        # all of them
    scopevit list detection tiny         # those with both words (xtiny is another word) in their path, data or result
    scopevit list ade20k upernet --sort macs
    scopevit list --backbones            # the archs of a ScopeViT, their names in timm, and the channels of their maps

Parameters and MACs are those of the whole model, for one image of the size that is stated with them. A result stands
where one was measured with this code, or the paper's, which is marked so. Other columns are empty where a config is
for your own data. Of a backbone they are its own, without a head.
"""

import re

from scopevit.utils.arguments import tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.metafiles import backbones, listed, result
from scopevit.utils.tables import markdown

CONFIGS = 'Config', 'Data', 'Image', 'Parameters', 'MACs', 'Result'
BACKBONES = 'arch', 'In timm', 'Channels at strides 4, 8, 16, 32', 'Image', 'Parameters', 'MACs'
# What --sort sorts by, and where the metafiles have it.
NUMBERS = dict(params='Parameters', macs='FLOPs')


def row(name: str, entry: dict | None) -> tuple[str, ...]:
    if entry is None:
        return name, '', '', '', '', ''
    data = entry['Metadata']
    return name, data['Training Data'].partition(' (')[0], data['Image Size'], *numbers(data), result(entry)


def numbers(data: dict, of: str = '') -> tuple[str, str]:
    return f'{data[f"{of}Parameters"] / 1e6:.2f} M', f'{data[f"{of}FLOPs"] / 1e9:.4g} G'


def backbone_row(arch: str, data: dict) -> tuple[str, ...]:
    channels = ', '.join(map(str, data['Backbone Channels']))
    return arch, f'scopevit_{arch}', channels, data['Image Size'], *numbers(data, 'Backbone ')


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__, needs_torch=False)
    parser.add_argument('words', nargs='*', metavar='WORD', help='list only what has all words that begin so')
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument('--measured', action='store_true', help='list only configs with a result that was measured')
    kinds.add_argument('--backbones', action='store_true', help='list the archs of a ScopeViT instead of configs')
    parser.add_argument('--sort', choices=('name', *NUMBERS), default='name', help='order (default: %(default)s)')
    args = parser.parse_args()

    if args.backbones:
        what, header, text_columns = 'backbone', BACKBONES, 3
        found = [(data, backbone_row(arch, data)) for arch, data in backbones()]
    else:
        what, header, text_columns = 'config', CONFIGS, 2
        configs = [(entry or {}, row(name, entry)) for name, entry in listed()]
        found = [(entry.get('Metadata'), cells) for entry, cells in configs if 'Results' in entry or not args.measured]
    wanted = [re.compile(rf'(?<![^\W_]){re.escape(word)}', re.IGNORECASE) for word in args.words]
    found = [item for item in found if all(word.search(' '.join(item[1])) for word in wanted)]
    if not found:
        raise UserError(f'no {what} has {" and ".join(args.words) or "a result"}; scopevit list lists all')
    if args.sort != 'name':
        found.sort(key=lambda item: item[0][NUMBERS[args.sort]] if item[0] else 0)
    print(markdown([header, *(cells for _, cells in found)], text_columns))


if __name__ == '__main__':
    main()
