"""Build every row of the table and count it.

    python projects/imagenet_table/make_table.py           # table.md and table.json
    python projects/imagenet_table/make_table.py --speed   # also speed.md and speed.json

The files are written when all rows are chosen; the command fails if a stated number is neither
the measured one rounded nor explained.
"""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import torch
from mmengine.logging import MMLogger

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's models

from projects.imagenet_table.rows import PROJECT, ROOT, ROWS, Row, choose_rows  # noqa: E402
from scopevit.analysis import CONVENTION, count  # noqa: E402
from scopevit.analysis.benchmark import Entry, Settings, compare, markdown  # noqa: E402
from scopevit.analysis.networks import load_network  # noqa: E402
from scopevit.engine.errors import UserError, user_errors  # noqa: E402

HALF_A_DIGIT = 0.05  # numbers of the table have one decimal


def measure(row: Row) -> dict:
    """What the table states of a row, and what is measured, in its units."""
    network, _ = load_network(str(ROOT / row.config))
    counted = count(network, torch.zeros(1, 3, row.size, row.size))
    if counted.uncounted:
        raise UserError(f'{row.name}: operators that cannot be counted: {", ".join(counted.uncounted)}')
    facts = dict(name=row.name, config=row.config, source=row.source, input=row.size)
    rounded = True
    for key, stated, unit in (('parameters', row.parameters, 1e6), ('macs', row.macs, 1e9)):
        measured = getattr(counted, key)
        difference = measured / unit - stated
        rounded &= abs(difference) <= HALF_A_DIGIT
        facts[key] = dict(table=stated, measured=measured, difference=round(difference, 3))
    facts['explanation'] = '' if rounded else row.explanation(network)
    if not rounded and not facts['explanation']:
        raise UserError(f'{row.name}: a stated number is not the measured one rounded, and nothing says why: {facts}')
    facts['top1_of_the_paper'] = row.top1
    return facts


def table(rows: list) -> str:
    header = ('Model', 'Input', 'Parameters (M)', 'measured', 'MACs (G)', 'measured', 'Top-1 (%), of the paper')
    lines = [(*header, 'Built from')]
    for facts in rows:
        parameters, macs = facts['parameters'], facts['macs']
        lines.append(
            (
                facts['name'] + ' *' * bool(facts['explanation']),
                f'{facts["input"]}',
                f'{parameters["table"]}',
                f'{parameters["measured"]:,} ({parameters["difference"]:+.3f} M)',
                f'{macs["table"]}',
                f'{macs["measured"] / 1e9:.3f} ({macs["difference"]:+.3f})',
                f'{facts["top1_of_the_paper"]}',
                facts['source'],
            )
        )
    text = [markdown(lines), '']
    text += [f'- \\* {facts["name"]}: {facts["explanation"]}.' for facts in rows if facts['explanation']]
    return '\n'.join(text)


def explain(rows: list) -> str:
    """The whole page."""
    return f"""# The table, measured

Parameters in millions and multiply-accumulates in billions as the table states them, and as measured with the
difference in brackets; other differences are rounding. Counted are {CONVENTION}.
**The accuracies are the papers' own; nothing here was trained on ImageNet.**

    python projects/imagenet_table/make_table.py

{date.today()}, torch {torch.__version__}.

{table(rows)}
"""


def write(name: str, page: str, facts: dict) -> None:
    (PROJECT / f'{name}.md').write_text(page)
    (PROJECT / f'{name}.json').write_text(json.dumps(facts, indent=2) + '\n')
    print(f'wrote {name}.md and {name}.json in {PROJECT.relative_to(ROOT)}')


def make_table(args: argparse.Namespace) -> None:
    chosen = choose_rows(args.rows)
    rows = []
    for row in chosen:
        print(f'{row.name} ...', file=sys.stderr)
        rows.append(measure(row))
    print(table(rows))
    whole = len(chosen) == len(ROWS)
    if whole:
        write('table', explain(rows), dict(date=str(date.today()), torch=torch.__version__, rows=rows))
    if not args.speed:
        return
    entries = [Entry(row.name, load_network(str(ROOT / row.config))[0], (row.size, row.size)) for row in chosen]
    entries.sort(key=lambda entry: not entry.label.startswith('ScopeViT'))  # others are compared with it
    settings = Settings(
        batch=args.batch, train=args.train, device=args.device, threads=args.threads, rounds=args.rounds
    )
    report = compare(entries, settings, progress=lambda text: print(text, file=sys.stderr))
    page = f'{report.table()}\n\n{report.conditions()}'
    print(page)
    if whole:
        command = ' '.join(['python projects/imagenet_table/make_table.py', *sys.argv[1:]])
        title = f'# Speed and memory of the rows\n\n    {command}\n\n'
        write('speed-train' if args.train else 'speed', f'{title}{page}\n', report.to_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=[], metavar='NAME', help='only these, and write no files')
    parser.add_argument('--speed', action='store_true', help='also measure speed and memory, alternately')
    parser.add_argument('--train', action='store_true', help='speed of training steps, into speed-train.*')
    parser.add_argument('--batch', type=int, default=8, help='images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=20, help='measurements of a row (default: %(default)s)')
    parser.add_argument('--threads', type=int, help="threads of a CPU (default: torch's choice)")
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where (default: %(default)s)'
    )
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')
    with user_errors():
        make_table(args)


if __name__ == '__main__':
    main()
