"""Check, and begin to train on, data in which one thing is wrong, and sort how that ends.

    python projects/robustness/mutate_data.py --table projects/robustness/result_data.md

Small synthetic scenes in COCO's and ADE20K's layouts and class folders are copied, and one thing of
a copy is changed: an entry of an annotation file at any depth, or an image, label map or folder; a
fixed seed says which. Each case goes through what tools/data/check_dataset.py looks at, and through
the start of a training: the model is built, the data are loaded and looked at as before any
training, and the first batches are put together. Results are added to a file, one line each; what
is in it already is not run again.
"""

import argparse
import copy
import functools
import json
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the generator of scenes

from projects.robustness.cases import add_case_arguments, get_ready_for_children, run_cases  # noqa: E402
from projects.scenes.generator import write_ade20k, write_coco  # noqa: E402
from scopevit.checks.channels import check_channels  # noqa: E402
from scopevit.checks.dataset import check_dataset  # noqa: E402
from scopevit.checks.findings import refuse_errors  # noqa: E402
from scopevit.checks.training import failures_explained, require_sound_data  # noqa: E402
from scopevit.engine.launch import build_runner, prepare  # noqa: E402
from scopevit.utils.arguments import positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, one_line, user_errors  # noqa: E402

SCENES, CONFIGS = ROOT / 'projects' / 'scenes' / 'configs', ROOT / 'configs'
TASKS = {
    'boxes and masks': SCENES / 'mask-rcnn_scopevit-xtiny_fpn_2xb4-1e_scenes.py',
    'joints': SCENES / 'td-hm_scopevit-xtiny_2xb16-6e_scenes-128x96.py',
    'label maps': SCENES / 'scopevit-xtiny_fpn_2xb4-4e_scenes-128x128.py',
    'class folders': CONFIGS / 'classification' / 'scopevit-tiny_1xb64-30e-ft_custom-256px.py',
}
FILES = {'boxes and masks': 'instances', 'joints': 'person_keypoints'}  # tasks whose labels are in COCO's form
FOLDERS = {'label maps': 'data/scenes/ade/ADEChallengeData2016', 'class folders': 'data/custom'}
MEMORY = 6 * 2**30  # bytes that a case may take
ENDS = {
    'sound': 'no problem was found; a training may warn of what is wrong, and begins',
    'told': 'problems are listed, or one line says what is wrong',
    'later': 'the traceback of a toolbox when the first batches are put together, and what the rules found below it',
    'traceback': 'a traceback of the check, or of the start of the training',
    'limit': 'out of time or memory, or killed',
}


@functools.lru_cache
def settings(task: str) -> Config:
    """A task's config for small batches, loaded in this process; it is not to be changed."""
    cfg = Config.fromfile(TASKS[task])
    for name, batch in (('train_dataloader', 2), ('val_dataloader', 1)):
        cfg[name].update(batch_size=batch, num_workers=0, persistent_workers=False)
    if task == 'class folders':
        cfg.merge_from_dict({'model.head.num_classes': 3, 'data_preprocessor.num_classes': 3})
    cfg.merge_from_dict(dict(randomness=dict(seed=0), work_dir='run', vis_backends=[], test_dataloader=None))
    cfg.test_cfg = cfg.test_evaluator = None
    return cfg


def write_data(folder: Path) -> None:
    """The sound data of all tasks."""
    write_coco(str(folder / 'data/scenes/coco'), 0, 6, 3)
    write_ade20k(str(folder / FOLDERS['label maps']), 0, 6, 3)
    rng = np.random.default_rng(0)
    for split, name, number in ((s, c, i) for s in ('train', 'val') for c in 'abc' for i in range(3)):
        path = folder / FOLDERS['class folders'] / split / name / f'{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (40, 48, 3), np.uint8))


# Annotation files


def places(node: object, key: tuple = ()) -> list[tuple]:
    """The keys of all values within others; of long lists of numbers the first."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    if isinstance(node, list) and node and not isinstance(node[0], (dict, list)):
        items = items[:1]
    return [found for name, value in items for found in ((*key, name), *places(value, (*key, name)))]


VALUES = (
    None,
    'text',
    '',
    [],
    {},
    [1],
    True,
    -1,
    0,
    0.5,
    10**9,
    1e300,
    10**400,
    float('nan'),
    float('inf'),
    '../x.jpg',
)


def mutate_file(path: Path, rng: random.Random) -> str:
    """Change one thing of an annotation file; returns what."""
    text = path.read_text()
    content = json.loads(text)
    kind = rng.choice(('value', 'value', 'value', 'value', 'removed', 'removed', 'doubled', 'cut', 'order'))
    if kind == 'cut':
        end = rng.randrange(len(text))
        path.write_text(text[:end])
        return f'{path.name} cut after {end} characters'
    if kind == 'order':
        key = rng.choice(sorted(key for key in content if isinstance(content[key], list)))
        content[key].reverse()
        path.write_text(json.dumps(content))
        return f'{path.name}: {key} reversed'
    by_depth: dict[int, list[tuple]] = {}
    for place in places(content):  # few are near the top, and would hardly be chosen
        by_depth.setdefault(len(place), []).append(place)
    *parents, last = rng.choice(by_depth[rng.choice(sorted(by_depth))])
    holder = content
    for name in parents:
        holder = holder[name]
    where = '.'.join(map(str, [*parents, last]))
    if kind == 'removed':
        del holder[last]
    elif kind == 'doubled' and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[last] = rng.choice(VALUES)
        where += f'={str(holder[last])[:20]}'
    path.write_text(json.dumps(content))
    return f'{path.name}: {where} {kind}'


# Images, label maps and folders


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: path.write_bytes(change(path.read_bytes(), rng)) and None


def _flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(20):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def _image(change: Callable[[Image.Image, random.Random], Image.Image]) -> Callable[[Path, random.Random], None]:
    def apply(path: Path, rng: random.Random) -> None:
        with Image.open(path) as image:
            image.load()
        # What counts is the content, not the suffix.
        changed = change(image, rng)
        changed.save(path, format='TIFF' if path.suffix == '.jpg' or changed.mode == 'F' else 'PNG')

    return apply


def _turned(path: Path, rng: random.Random) -> None:
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(2, 9)
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def _replaced(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def apply(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return apply


CHANGES: dict[str, Callable[[Path, random.Random], object]] = {
    'cut': _bytes(lambda data, rng: data[: rng.randrange(len(data))]),
    'bytes changed': _bytes(_flipped),
    'empty': _bytes(lambda data, rng: b''),
    'text': _bytes(lambda data, rng: b'not an image'),
    'in 16 bits': _image(lambda image, rng: Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 16)),
    'in floats': _image(lambda image, rng: Image.fromarray(np.asarray(image.convert('L')).astype(np.float32) / 255)),
    'in colour': _image(lambda image, rng: image.convert('RGB')),
    'with transparency': _image(lambda image, rng: image.convert(rng.choice(('RGBA', 'LA')))),
    'of two values': _image(lambda image, rng: image.convert('1')),
    'of one pixel': _image(lambda image, rng: image.resize((1, 1))),
    'of another size': _image(lambda image, rng: image.resize((rng.randrange(1, 99), rng.randrange(1, 99)), 0)),
    'of values at random': _image(
        lambda image, rng: Image.fromarray(
            np.random.default_rng(rng.randrange(99)).integers(0, 256, image.size[::-1], np.uint8)
        )
    ),
    'turned': _turned,
    'removed': lambda path, rng: path.unlink(),
    'a folder': _replaced(Path.mkdir),
    'a link to nothing': _replaced(lambda path: path.symlink_to('nowhere')),
    'a link to a device': _replaced(lambda path: path.symlink_to('/dev/zero')),
    'a pipe': _replaced(os.mkfifo),
    'of another suffix': lambda path, rng: path.rename(path.with_suffix(rng.choice(('.JPG', '.webp', '.tif', '.txt')))),
    'of an odd name': lambda path, rng: path.rename(path.with_name('a b\udcff' + path.suffix)),
    'its folder gone': lambda path, rng: shutil.rmtree(path.parent),
    'its folder empty': lambda path, rng: [file.unlink() for file in path.parent.iterdir()],
    'with a hidden folder beside its own': lambda path, rng: (path.parent.parent / '.ipynb_checkpoints').mkdir(),
    'with another folder beside its own': lambda path, rng: shutil.copytree(path.parent, path.parent.parent / 'zzz'),
}  # fmt: skip


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Change one file of a folder, all of its kind in it, or their folder; returns what."""
    path = rng.choice(sorted(file for file in folder.rglob('*') if file.suffix in ('.jpg', '.png')))
    name = rng.choice(sorted(CHANGES))
    of_all = rng.random() < 0.3 and 'folder' not in name and 'odd name' not in name
    for file in sorted(path.parent.iterdir()) if of_all else [path]:
        CHANGES[name](file, rng)
    return (
        f'{"all of " if of_all else ""}{path.parent.relative_to(folder) if of_all else path.relative_to(folder)} {name}'
    )


def mutate(task: str, folder: Path, rng: random.Random) -> str:
    """Change one thing in the data of a task; returns what."""
    if task in FOLDERS:
        return mutate_folder(folder / FOLDERS[task], rng)
    name = f'{FILES[task]}_{rng.choice(("train", "val"))}2017.json'
    return mutate_file(folder / 'data/scenes/coco/annotations' / name, rng)


def cases(coco: int, folders: int) -> list[str]:
    """The task of each case."""
    return [list(FILES)[i % len(FILES)] for i in range(coco)] + [
        list(FOLDERS)[i % len(FOLDERS)] for i in range(folders)
    ]


# How it ends


def check(cfg: Config) -> tuple[str, str]:
    """What check_dataset.py finds: one of ``ENDS``, and the first problem."""
    try:
        found = [str(finding) for finding in check_dataset(cfg, 10) if finding.is_problem]
    except UserError as error:
        return 'told', str(error)
    except Exception as error:  # which is what is looked for
        return 'traceback', _last_frame(error)
    return ('told', found[0]) if found else ('sound', '')


def start(cfg: Config) -> tuple[str, str]:
    """How a training starts, up to the batches of an epoch and a validation."""
    started = False
    try:
        prepare(cfg, argparse.Namespace(work_dir=None, launcher='none', local_rank=0))
        runner = build_runner(cfg)
        refuse_errors(check_channels(runner.model))
        require_sound_data(runner, 'the config')
        started = True
        with failures_explained(runner, 'the config'):
            for loop in (runner.train_loop, runner.val_loop):
                for batch in loop.dataloader:
                    runner.model.data_preprocessor(batch, loop is runner.train_loop)
    except UserError as error:
        return ('later' if 'the run failed, see above' in str(error) else 'told'), str(error)
    except Exception as error:  # which is what is looked for
        return ('later' if started else 'traceback'), _last_frame(error)
    return 'sound', ''


def _last_frame(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{one_line(error)} ({"/".join(Path(frame.filename).parts[-3:])}:{frame.lineno})'


def run(number: int, task: str, seed: int, base: Path, seconds: int) -> dict:
    """Mutate and try a case in a child of this process, which has imported all; returns how that ended."""
    folder = base / 'case'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base / 'sound', folder)
    change = mutate(task, folder, random.Random(f'{seed}-{number}'))
    row = dict(number=number, task=task, change=change.encode(errors='backslashreplace').decode())
    child = os.fork()
    if not child:
        try:
            _try(task, folder, seconds)
        finally:
            os._exit(9)
    os.waitpid(child, 0)
    written = folder / 'ends.json'
    ends = json.loads(written.read_text()) if written.exists() else {}
    for step in ('check', 'start'):
        end, says = ends.get(step, ('limit', ''))
        row.update({step: end, f'{step}_says': ' '.join(says.split())[:300]})
    return {**row, 'date': str(date.today())}


def _try(task: str, folder: Path, seconds: int) -> None:
    """Check the data of a case, start to train on them, and write down how both ended."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with open(folder / 'log.txt', 'w') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    ends = {}
    for step in (check, start):
        signal.alarm(seconds)
        ends[step.__name__] = step(copy.deepcopy(settings(task)))
        (folder / 'ends.json').write_text(json.dumps(ends))
    os._exit(0)


def write_table(rows: list[dict], path: str) -> None:
    days = sorted({row['date'] for row in rows})
    when = days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'
    lines = [
        '# How data with one thing wrong end',
        '',
        f'    {shlex.join(["python", "projects/robustness/mutate_data.py", *sys.argv[1:]])}',
        '',
        f'{when}, {os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}; '
        f'{len(rows)} cases. Each cell is the check, then the start of a training.',
        '',
        f'| End | {" | ".join(TASKS)} | Meaning |',
        f'| --- |{" --- |" * len(TASKS)} --- |',
    ]
    counts = Counter((row['task'], step, row[step]) for row in rows for step in ('check', 'start'))
    for end, meaning in ENDS.items():
        cells = [f'{counts[task, "check", end]}, {counts[task, "start", end]}' for task in TASKS]
        lines.append(f'| {end} | {" | ".join(cells)} | {meaning} |')
    lines += [
        '',
        '## All that were not sound or told',
        '',
        '| Data | Change | Step | End | Says |',
        '| --- |' + ' --- |' * 4,
    ]
    for row in rows:
        for step in ('check', 'start'):
            if row[step] not in ('sound', 'told'):
                cells = (row['task'], row['change'], step, row[step], row[f'{step}_says'])
                lines.append('| ' + ' | '.join(cell.replace('|', '/')[:200] for cell in cells) + ' |')
    Path(path).write_text('\n'.join(lines) + '\n')


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--coco', type=positive, default=300, metavar='N', help='cases of COCO files (default: %(default)s)'
    )
    parser.add_argument(
        '--folders',
        type=positive,
        default=200,
        metavar='N',
        help='cases of label maps and class folders (default: %(default)s)',
    )
    add_case_arguments(parser, 60, 'work_dirs/mutated_data')
    args = parser.parse_args()
    get_ready_for_children()
    with user_errors():
        folder = Path(args.work_dir).resolve()
        write_data(folder / 'sound')
        tasks = cases(args.coco, args.folders)
        for task in TASKS:  # once, not in each child
            settings(task)
        rows = run_cases(
            folder / f'results_{args.seed}_{args.coco}_{args.folders}.jsonl',
            len(tasks),
            lambda number: run(number, tasks[number], args.seed, folder, args.timeout),
            lambda row: f'{row["check"]}, {row["start"]}: {row["task"]} {row["change"]}',
        )
        for step in ('check', 'start'):
            print(step, ', '.join(f'{end}: {count}' for end, count in Counter(row[step] for row in rows).most_common()))
        if args.table:
            write_table(rows, args.table)


if __name__ == '__main__':
    main()
