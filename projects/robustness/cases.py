"""What both experiments share: cases run one after the other, each in a child of a process that has imported all."""

import argparse
import gc
import json
from collections.abc import Callable
from pathlib import Path

import cv2

from scopevit.utils.arguments import add_arguments, positive


def add_case_arguments(parser: argparse.ArgumentParser, seconds: int, work_dir: str) -> None:
    """Add the options that both have, with these defaults."""
    add_arguments(parser, '--seed', help='random seed, by which changes are chosen (default: %(default)s)')
    parser.add_argument(
        '--timeout',
        type=positive,
        default=seconds,
        metavar='SECONDS',
        help='for a case, or each of its steps (default: %(default)s)',
    )
    add_arguments(parser, '--table', help='write a table of all results, in Markdown (default: none)')
    add_arguments(parser, '--work-dir', default=work_dir)


def get_ready_for_children() -> None:
    """Import what each child would import itself, and leave nothing that it would trip over."""
    import mmdet.apis  # noqa: F401
    import mmpose.apis  # noqa: F401
    import mmpretrain.apis  # noqa: F401
    import mmseg.apis  # noqa: F401

    cv2.setNumThreads(0)  # children would wait for threads that they do not have
    gc.freeze()  # children need not look through all that was imported


def run_cases(results: Path, count: int, run: Callable[[int], dict], says: Callable[[dict], str]) -> list[dict]:
    """Run those of ``count`` cases that are not in a file of results yet, one line each.

    Args:
        run: From the number of a case to its row, which has it as ``number``.
        says: What is printed of a row.

    Returns:
        The rows of all cases.
    """
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {row['number']: row for row in rows}
    for number in range(count):
        if number not in done:
            row = done[number] = run(number)
            print(f'[{number + 1}/{count}] {says(row)}', flush=True)
            with open(results, 'a') as file:
                file.write(json.dumps(row) + '\n')
    return [done[number] for number in range(count)]
