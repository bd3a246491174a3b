"""Images a second and core that ImageNet's pipelines prepare: ours beside mmpretrain's own with the same filters.

    python projects/speed/pipelines.py --table pipelines.md

Both go through the same photo-sized JPEGs with the same seeds, in turns, in one thread; times are that thread's own on
the CPU, so that what else the machine does counts little. Without IMAGES the photographs are synthetic: noise with
the spectrum of natural images, 500x375 and 375x500 pixels, 115 kB on average, as ImageNet's files are.
"""

import argparse
import os
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import TRANSFORMS

from scopevit.analysis.machine import describe_machine, load_average, machine_in_words
from scopevit.analysis.reporting import number, summary
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, whole_file, write_json
from scopevit.utils.tables import markdown

CONFIG = 'scopevit::classification/scopevit-tiny_8xb128-300e_in1k-256px.py'
SIZES = ((375, 500), (375, 500), (500, 375))


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    images = 'folder of photographs (default: 48 synthetic ones)'
    add_arguments(parser, 'images', nargs='?', metavar='IMAGES', help=images)
    add_arguments(parser, '--rounds', default=21)
    add_arguments(parser, '--json', '--table')
    return parser.parse_args()


def write_photos(folder: str, count: int = 48) -> None:
    """Noise whose amplitude falls with the frequency, as that of photographs does."""
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = SIZES[i % len(SIZES)]
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        frequency[0, 0] = 1
        spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
        grey, *tints = np.fft.irfft2(spectrum / frequency, (height, width))
        image = np.stack([grey + 0.3 * tints[0], grey, grey + 0.3 * tints[1]], axis=-1) / grey.std()
        pixels = np.clip(50 * image + 120, 0, 255).astype(np.uint8)
        cv2.imwrite(f'{folder}/{i}.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])


def upstream(pipeline: list[dict]) -> list[dict]:
    """What mmpretrain has itself in place of our transforms, resizing by Pillow."""
    theirs = [{**step, 'type': step['type'].removeprefix('scopevit.')} for step in pipeline]
    return [{**step, 'backend': 'pillow'} if step.get('backend') == 'torch' else step for step in theirs]


def prepare_all(transforms: list, paths: list[str], seed: int, spent: Counter | None = None) -> float:
    """CPU time in milliseconds an image; ``spent`` gets each transform's, which takes some time itself."""
    np.random.seed(seed)
    start = before = time.thread_time()
    for path in paths:
        results = dict(img_path=path, gt_label=0)
        for transform in transforms:
            results = transform(results)
            if spent is not None:
                now = time.thread_time()
                spent[type(transform).__name__] += 1e3 * (now - before) / len(paths)
                before = now
    return 1e3 * (time.thread_time() - start) / len(paths)


def measure(pipeline: list[dict], paths: list[str], rounds: int) -> dict[str, dict]:
    """Times of both, round by round, after one for the time of each transform."""
    both = dict(mmpretrain=upstream(pipeline), scopevit=pipeline)
    built = [(name, [TRANSFORMS.build(step) for step in steps]) for name, steps in both.items()]
    found: dict[str, dict] = {name: dict(steps=Counter(), images=[]) for name in both}
    for name, transforms in 2 * built:  # what is slow at the first time is not counted
        found[name]['steps'].clear()
        prepare_all(transforms, paths, 0, found[name]['steps'])
    order = random.Random(0)
    for seed in range(rounds):
        order.shuffle(built)
        for name, transforms in built:
            found[name]['images'].append(prepare_all(transforms, paths, seed))
    return found


def table(split: str, found: dict[str, dict]) -> str:
    """Medians in Markdown; the ratio is taken round by round."""
    theirs, ours = found['mmpretrain'], found['scopevit']
    medians = [summary(each['images'])['median'] for each in (theirs, ours)]
    ratio = summary([a / b for a, b in zip(theirs['images'], ours['images'])])
    spread = '{:.2f} ({:.2f} to {:.2f})'.format(*(ratio[key] for key in ('median', 'quartile1', 'quartile3')))
    rows = [(f'{split}, ms an image', 'mmpretrain', 'scopevit')]
    rows += [(name, *(f'{each["steps"][name]:.2f}' for each in (theirs, ours))) for name in ours['steps']]
    rows.append(('all, without the timing of each', *(f'{median:.2f}' for median in medians)))
    rows.append(('images/s and core', *(number(1e3 / median, 3) for median in medians)))
    return markdown([*rows, ('ratio', '1', spread)])


def run(args: argparse.Namespace) -> None:
    for option in ('json', 'table'):
        if getattr(args, option):
            require_writable_file(getattr(args, option), f'--{option}')
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    cfg = load_config(CONFIG)
    machine = describe_machine('cpu')
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            write_photos(folder)
        found = Path(args.images or folder).rglob('*')
        paths = sorted(str(path) for path in found if path.suffix.lower() in ('.jpg', '.jpeg'))
        if not paths:
            raise UserError(f'{args.images} has no .jpg or .jpeg files')
        size = sum(map(os.path.getsize, paths)) / len(paths) / 1e3
        results = {
            split: measure(cfg[f'{split}_dataloader'].dataset.pipeline, paths, args.rounds)
            for split in ('train', 'test')
        }
    machine['load_after'] = load_average()
    command = shlex.join(['python', os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    tables = '\n\n'.join(table(split, times) for split, times in results.items())
    text = (
        f'{tables}\n\nCPU time of one thread, {len(paths)} JPEGs of {size:.0f} kB on average; medians of {args.rounds} '
        f'rounds in turns, the ratio with quartiles.\n{machine_in_words(machine)}\n\n    {command}\n'
    )
    print(text)
    if args.table:
        with whole_file(args.table) as temporary:
            Path(temporary).write_text(text)
    if args.json:
        write_json(args.json, dict(command=command, machine=machine, kilobytes=size, results=results))


def main() -> None:
    args = parse_args()
    with user_errors():
        run(args)


if __name__ == '__main__':
    main()
