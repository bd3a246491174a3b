"""Images a second and core that ImageNet's pipelines prepare: ours beside mmpretrain's own with the same filters.

    python projects/speed/pipelines.py --table pipelines.md

Both go through the same photo-sized JPEGs with the same seeds, in turns, in one thread; times are that thread's own on
the CPU, so that what else the machine does counts little. Without --images the photographs are synthetic: noise with
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
from scopevit.analysis.reporting import markdown, number, summary
from scopevit.utils.arguments import positive
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import check_file, whole_file, write_json

CONFIG = 'scopevit::classification/scopevit-tiny_8xb128-300e_in1k-256px.py'
SIZES = ((375, 500), (375, 500), (500, 375))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', metavar='FOLDER', help='photographs to use (default: 48 synthetic ones)')
    parser.add_argument('--rounds', type=positive, default=21, help='times that both go through all images')
    parser.add_argument('--json', metavar='FILE', help='write all measurements')
    parser.add_argument('--table', metavar='FILE', help='write the tables, in Markdown, and how they came about')
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


def prepare_all(transforms: list, paths: list[str], seed: int) -> dict[str, float]:
    """CPU time of each transform in milliseconds an image."""
    np.random.seed(seed)
    spent: Counter = Counter()
    for path in paths:
        results = dict(img_path=path, gt_label=0)
        for transform in transforms:
            start = time.thread_time()
            results = transform(results)
            spent[type(transform).__name__] += time.thread_time() - start
    return {name: 1e3 * seconds / len(paths) for name, seconds in spent.items()}


def measure(pipeline: list[dict], paths: list[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Times of both, round by round, after one that is not measured."""
    both = dict(mmpretrain=upstream(pipeline), scopevit=pipeline)
    built = [(name, [TRANSFORMS.build(step) for step in steps]) for name, steps in both.items()]
    times: dict[str, list] = {name: [] for name in both}
    order = random.Random(0)
    for seed in range(rounds + 1):
        order.shuffle(built)
        for name, transforms in built:
            times[name].append(prepare_all(transforms, paths, seed))
    return {name: found[1:] for name, found in times.items()}


def table(split: str, times: dict[str, list[dict[str, float]]]) -> str:
    """Medians in Markdown; the ratio is taken round by round."""
    theirs, ours = times['mmpretrain'], times['scopevit']
    rows = [(f'{split}, ms an image', 'mmpretrain', 'scopevit')]
    for name in ours[0]:
        rows.append((name, *(number(summary([t[name] for t in found])['median'], 3) for found in (theirs, ours))))
    sums = [[sum(t.values()) for t in found] for found in (theirs, ours)]
    medians = [summary(found)['median'] for found in sums]
    rows.append(('all', *(number(median, 3) for median in medians)))
    rows.append(('images/s and core', *(number(1e3 / median, 3) for median in medians)))
    ratio = summary([a / b for a, b in zip(*sums)])
    rows.append(
        ('ratio', '1', '{:.2f} ({:.2f} to {:.2f})'.format(*(ratio[k] for k in ('median', 'quartile1', 'quartile3'))))
    )
    return markdown(rows)


def run(args: argparse.Namespace) -> None:
    for option in ('json', 'table'):
        if getattr(args, option):
            check_file(getattr(args, option), f'--{option}')
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
            raise UserError(f'--images {args.images}: there are no .jpg or .jpeg files')
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
