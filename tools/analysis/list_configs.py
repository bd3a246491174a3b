"""List the configs of this package with their parameters, multiply-accumulates and results.

    scopevit list                        # all of them
    scopevit list detection tiny         # those with both words (xtiny is another word) in their path, data or result
    scopevit list ade20k upernet --sort macs

Parameters and MACs are those of the whole model, for one image of the size that is stated with them. A result stands
where one was measured with this code, or the paper's, which is marked so. Other columns are empty where a config is
for your own data.
"""

import re

from scopevit.utils.arguments import tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.metafiles import listed, result

# What --sort sorts by, and where the metafiles have it.
NUMBERS = dict(params='Parameters', macs='FLOPs')


def row(name: str, entry: dict | None) -> tuple[str, ...]:
    if entry is None:
        return name, '', '', '', '', ''
    data = entry['Metadata']
    numbers = f'{data["Parameters"] / 1e6:.2f} M', f'{data["FLOPs"] / 1e9:.4g} G'
    return name, data['Training Data'].partition(' (')[0], data['Image Size'], *numbers, result(entry)


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('words', nargs='*', metavar='WORD', help='list only what has all words that begin so')
    parser.add_argument('--measured', action='store_true', help='list only configs with a result that was measured')
    parser.add_argument('--sort', choices=('name', *NUMBERS), default='name', help='order (default: %(default)s)')
    args = parser.parse_args()

    from scopevit.analysis.reporting import markdown

    found = [(entry, row(name, entry)) for name, entry in listed() if not args.measured or 'Results' in (entry or ())]
    wanted = [re.compile(rf'(?<![^\W_]){re.escape(word)}', re.IGNORECASE) for word in args.words]
    found = [item for item in found if all(word.search(' '.join(item[1])) for word in wanted)]
    if not found:
        raise UserError(f'no config has {" and ".join(args.words) or "a result"}; scopevit list lists all')
    if args.sort != 'name':
        found.sort(key=lambda item: item[0]['Metadata'][NUMBERS[args.sort]] if item[0] else 0)
    print(markdown([('Config', 'Data', 'Image', 'Parameters', 'MACs', 'Result'), *(cells for _, cells in found)], 2))


if __name__ == '__main__':
    main()
