"""Build every row of the table and count it.

    python projects/imagenet_table/make_table.py           # table.md and table.json
    python projects/imagenet_table/make_table.py --speed   # also speed.md and speed.json

The files are written when all rows are chosen; the command fails if a measured number is not the
one in rows.py, or a stated one is neither that one rounded nor explained.
"""

import argparse
import json
import re
import shlex
import sys
from datetime import date
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's models

from projects.imagenet_table.rows import PROJECT, ROOT, ROWS, Row, choose_rows  # noqa: E402
from scopevit.analysis import CONVENTION, Count, count  # noqa: E402
from scopevit.analysis.measuring import Entry, compare  # noqa: E402
from scopevit.analysis.reporting import Settings  # noqa: E402
from scopevit.analysis.spec import load_network
from scopevit.apis.model import Network, build_model
from scopevit.utils.arguments import add_arguments, positive, require_device, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.tables import markdown  # noqa: E402

HALF_A_DIGIT = 0.05  # numbers of the table have one decimal
TOLERANCE = 1e-3  # of multiply-accumulates, where libraries may pad or resize otherwise
SPEED_OPTIONS = ('train', 'batch_size', 'rounds', 'threads', 'device')


def measure(row: Row) -> dict:
    """What the table states of a row, and what is measured, in its units.

    Raises:
        UserError: If something cannot be counted, is not what it should be, or differs from the table without a reason.
    """
    network, counted = _count(row, {})
    facts = dict(name=row.name, config=row.config, source=f'{row.library}: {row.model}', input=row.size)
    if counted.parameters != row.counted_parameters:
        raise UserError(f'{row.name}: {counted.parameters:,} parameters, but it should have {row.counted_parameters:,}')
    if abs(counted.macs / row.counted_macs - 1) > TOLERANCE:
        raise UserError(f'{row.name}: {counted.macs:,} MACs, but it should have {row.counted_macs:,}')
    for key, unit in (('parameters', 1e6), ('macs', 1e9)):
        stated, measured, why = getattr(row, key), getattr(counted, key), getattr(row, f'why_{key}')
        difference = measured / unit - stated
        rounded = abs(difference) <= HALF_A_DIGIT
        if rounded == bool(why):
            raise UserError(
                f'{row.name}: {measured:,} {key} are {"" if rounded else "not "}the {stated} of the table, rounded, '
                f'and rows.py has {"an" if why else "no"} explanation'
            )
        facts[key] = dict(table=stated, measured=measured, difference=round(difference, 3), explanation=why)
    if row.left_out:
        kept = [p.numel() for name, p in network.named_parameters() if not re.search(row.left_out, name)]
        facts['parameters'].update(without_left_out=sum(kept), explanation=row.why_parameters.format(rest=sum(kept)))
    if row.other_mode:
        name, options = row.other_mode
        facts['macs']['other_mode'] = dict(name=name, measured=_count(row, options)[1].macs)
    facts['top1_of_the_paper'] = dict(table=row.top1, explanation=row.why_top1)
    return facts


def _count(row: Row, options: dict) -> tuple[nn.Module, Count]:
    cfg = row.load()
    cfg.merge_from_dict(options)
    network = Network(build_model(cfg))
    counted = count(network, torch.zeros(1, 3, row.size, row.size))
    if counted.uncounted:
        raise UserError(f'{row.name}: operators that cannot be counted: {", ".join(counted.uncounted)}')
    return network, counted


def table(rows: list) -> str:
    header = ('Model', 'Input', 'Parameters (M)', 'measured', 'MACs (G)', 'measured', 'Top-1 (%), of the paper')
    lines = [(*header, 'Built from')]
    for facts in rows:
        parameters, macs = facts['parameters'], facts['macs']
        lines.append(
            (
                facts['name'] + ' *' * bool(notes(facts)),
                f'{facts["input"]}',
                f'{parameters["table"]}',
                f'{parameters["measured"]:,} ({parameters["difference"]:+.3f} M)',
                f'{macs["table"]}',
                f'{macs["measured"] / 1e9:.3f} ({macs["difference"]:+.3f})',
                f'{facts["top1_of_the_paper"]["table"]}',
                facts['source'],
            )
        )
    text = [markdown(lines), '']
    text += [f'- \\* {facts["name"]}: {note}.' for facts in rows for note in notes(facts)]
    return '\n'.join(text)


def notes(facts: dict) -> list[str]:
    """What has to be said of a row's numbers."""
    columns = (('parameters', 'parameters'), ('macs', 'MACs'), ('top1_of_the_paper', 'top-1'))
    lines = [f'{name}: {facts[key]["explanation"]}' for key, name in columns if facts[key]['explanation']]
    other = facts['macs'].get('other_mode')
    if other:
        lines.append(f'MACs: {other["measured"]:,} with {other["name"]}, {facts["macs"]["measured"]:,} else')
    return lines


def explain(rows: list) -> str:
    """The whole page."""
    return f"""# The table, measured

Parameters in millions and multiply-accumulates in billions as the table states them, and as measured with the
difference in brackets; differences without a note below are rounding. Counted are {CONVENTION}.
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
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    require_device(args.device)
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
        batch=args.batch_size, train=args.train, device=args.device, threads=args.threads, rounds=args.rounds
    )
    report = compare(entries, settings, progress=lambda text: print(text, file=sys.stderr))
    page = f'{report.table()}\n\n{report.conditions()}'
    print(page)
    if whole:
        command = shlex.join(['python', 'projects/imagenet_table/make_table.py', *sys.argv[1:]])
        title = f'# Speed and memory of the rows\n\n    {command}\n\n'
        write('speed-train' if args.train else 'speed', f'{title}{page}\n', report.to_dict())
    if report.failures:
        raise UserError('; '.join(report.failures))


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--rows', nargs='+', default=[], metavar='NAME', help='rows to measure; no files are written (default: all)'
    )
    parser.add_argument('--speed', action='store_true', help='also measure speed and memory, alternately')
    parser.add_argument('--train', action='store_true', help='speed of training steps, into speed-train.*')
    add_arguments(parser, '--batch-size')
    add_arguments(parser, '--rounds', default=20)
    parser.add_argument('--threads', type=positive, metavar='N', help="threads on the CPU (default: torch's choice)")
    add_arguments(parser, '--device')
    args = parser.parse_args()
    useless = [
        f'--{name.replace("_", "-")}' for name in SPEED_OPTIONS if getattr(args, name) != parser.get_default(name)
    ]
    if useless and not args.speed:
        parser.error(f'{", ".join(useless)} must come with --speed')
    MMLogger.get_current_instance().setLevel('WARNING')
    with user_errors():
        make_table(args)


if __name__ == '__main__':
    main()
