"""Write the READMEs' tables of configs from the metafiles, the one home of their numbers.

    python tools/analysis/readme_tables.py

What stands between the markers of a page is rewritten.
"""

import os
from pathlib import Path

import yaml

from scopevit.utils.arguments import tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import write_whole
from scopevit.utils.metafiles import result

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (*(f'configs/{task}' for task in ('classification', 'detection', 'segmentation', 'pose')), 'projects/scenes')
BEGIN = '<!-- written by tools/analysis/readme_tables.py -->'
END = '<!-- end of the table -->'


def entries(folder: str) -> list[dict]:
    """A folder's configs, as its metafile lists them."""
    return yaml.safe_load((ROOT / folder / 'metafile.yml').read_text())['Models']


def table(header: str, rows: list[list[str]]) -> str:
    """A Markdown table; the columns between the first and the last hold numbers."""
    rule = '| --- |' + ' ---: |' * (header.count(',') - 1) + ' --- |'
    lines = ['| ' + ' | '.join(header.split(', ')) + ' |', rule, *('| ' + ' | '.join(row) + ' |' for row in rows)]
    return '\n'.join(line.replace('|  |', '| |') for line in lines)


def size_and_macs(metadata: dict) -> list[str]:
    return [metadata['Image Size'], f'{metadata["FLOPs"] / 1e9:.4g}']


def folder_table(folder: str) -> str:
    rows = []
    for entry in entries(folder):
        metadata = entry['Metadata']
        config = f'[{entry["Name"]}]({os.path.relpath(entry["Config"], folder)})'
        rows.append([config, f'{metadata["Parameters"] / 1e6:.2f}', *size_and_macs(metadata), result(entry)])
    return table('Config, Parameters (M), Image, MACs (G), Result', rows)


def root_table() -> str:
    """The plain ImageNet models."""
    rows = []
    for entry in entries('configs/classification'):
        metadata, (model, recipe, *_) = entry['Metadata'], entry['Name'].split('_')
        if metadata['Training Data'] != 'ImageNet-1k' or recipe.endswith(('-ema', '-ft')):
            continue
        parameters = [f'{metadata[key] / 1e6:.2f}' for key in ('Parameters', 'Backbone Parameters')]
        name = f'[{model.replace("scopevit", "ScopeViT")}]({entry["Config"]})'
        rows.append([name, *parameters, *size_and_macs(metadata), result(entry).removeprefix('Top 1 Accuracy ') or '-'])
    return table('Model, Parameters (M), Backbone alone (M), Image, MACs (G), ImageNet-1K (%)', rows)


def pages() -> dict[str, str]:
    """Each README with its table."""
    return {'README.md': root_table(), **{f'{folder}/README.md': folder_table(folder) for folder in FOLDERS}}


def with_table(page: str, text: str, new_table: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f'{page} has no place for its table: put it between the lines {BEGIN} and {END}')
    return f'{before}{BEGIN}\n\n{new_table}\n\n{END}{after}'


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a table is out of date')
    args = parser.parse_args()

    old = {page: (ROOT / page).read_text() for page in pages()}
    new = {page: with_table(page, old[page], new_table) for page, new_table in pages().items()}
    outdated = [page for page in new if new[page] != old[page]]
    if args.check and outdated:
        raise UserError(
            f'not as the metafiles have it: {", ".join(outdated)}; run python tools/analysis/readme_tables.py'
        )
    for page in outdated:
        write_whole(str(ROOT / page), new[page])
        print(f'{page}: written')


if __name__ == '__main__':
    main()
