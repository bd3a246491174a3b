"""Train configs in which one setting is wrong, and sort how that ends: trained, one line, or a traceback.

    python projects/robustness/mutate_configs.py --table projects/robustness/result.md

The configs for synthetic scenes of all four tasks are shortened to two iterations on a few images.
In each case one key is removed, or its value is of another type or out of range; a fixed seed says
which. Each case runs tools/train.py in a process of its own. Results are added to a file, one line
each; what is in it already is not run again.
"""

import copy
import importlib.util
import os
import platform
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from datetime import date
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the generator of scenes

from projects.robustness.cases import add_case_arguments, get_ready_for_children, run_cases  # noqa: E402
from projects.scenes.generator import write_ade20k, write_coco, write_imagenet  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402

DATA = {'imagenet': write_imagenet, 'coco': write_coco, 'ade/ADEChallengeData2016': write_ade20k}
KINDS = ('removed', 'type', 'range')
# What a training does not look at, and what it would do on the user's behalf.
LEFT_OUT = re.compile(
    r'test_|tta_|work_dir|load_from|resume|launcher|vis_|custom_imports|train_pipeline|val_pipeline|filename'
)
MEMORY = 8 * 2**30  # bytes that a case may take
ENDS = {
    'trained': 'the setting has a default, or does no harm in two iterations',
    'one line': '`error: ...`',
    'later': 'a traceback from the training or validation itself that ends elsewhere',
    'building': 'a traceback from building that ends elsewhere',
    'ours': 'a traceback that ends in the code of this package',
    'limit': 'out of time or memory, or killed',
}


def configs() -> dict[str, Path]:
    """The configs for synthetic scenes, by name."""
    return {path.stem: path for path in sorted((ROOT / 'projects' / 'scenes' / 'configs').glob('*_scenes*.py'))}


def shortened(path: Path) -> dict:
    """A config's settings for two iterations and a validation on a few images."""
    cfg = Config.fromfile(path)
    for name, batch in (('train_dataloader', 2), ('val_dataloader', 1)):
        cfg[name].update(batch_size=batch, num_workers=0, persistent_workers=False)
        cfg[name].dataset.indices = 4
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    return cfg.to_dict()


def keys(node: object, key: tuple = ()) -> list[tuple]:
    """The keys of all settings within others."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    found = []
    for name, value in items:
        if not key and LEFT_OUT.match(str(name)):
            continue
        found += [(*key, name), *keys(value, (*key, name))]
    return found


def mutate(settings: dict, kind: str, rng: random.Random) -> tuple[str, dict]:
    """A copy of settings in which one is wrong, and what that is."""
    settings = copy.deepcopy(settings)
    while True:
        key = rng.choice(keys(settings))
        holder = settings
        for name in key[:-1]:
            holder = holder[name]
        last, value = key[-1], holder[key[-1]]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(holder, tuple) or (kind == 'range' and not is_number) or (kind == 'removed' and not holder):
            continue
        where = '.'.join(map(str, key))
        if kind == 'removed':
            del holder[last]
            return f'{where} removed', settings
        if kind == 'range':
            holder[last] = rng.choice([-1, 0, value * 1000 + 1])
        elif isinstance(value, (dict, list, tuple)):
            holder[last] = rng.choice([5, 'text'])
        else:
            holder[last] = rng.choice([dict(a=1), [1], 7 if isinstance(value, str) else 'text'])
        if holder[last] != value:
            return f'{where}={holder[last]!r}, was {str(value)[:60]}', settings


def cases(count: int, seed: int) -> list[dict]:
    """What is changed in which config, and the settings that come of it."""
    rng, bases = random.Random(seed), {name: shortened(path) for name, path in configs().items()}
    if not bases:
        raise UserError(f'there is no config for synthetic scenes in {ROOT}')
    found = []
    for i in range(count):
        name = sorted(bases)[i % len(bases)]
        change, settings = mutate(bases[name], KINDS[i // len(bases) % len(KINDS)], rng)
        found.append(dict(number=i, config=name, change=change, settings=settings))
    return found


def run(case: dict, folder: Path, seconds: int) -> dict:
    """Train a case in a child of this process, which has imported all; returns how it ended."""
    log, start = folder / f'{case["number"]}.log', time.time()
    shutil.rmtree(folder / 'run', ignore_errors=True)  # a training refuses a folder with another one's checkpoints
    child = os.fork()
    if not child:
        try:
            _train(case, folder, log, seconds)
        finally:
            os._exit(9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = log.read_text(errors='replace')
    row = {key: case[key] for key in ('number', 'config', 'change')}
    return {**row, **classify(status, text), 'seconds': round(time.time() - start), 'date': str(date.today())}


def _train(case: dict, folder: Path, log: Path, seconds: int) -> None:
    """Be tools/train.py for a case; never returns."""
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    status = 0
    try:
        path = folder / f'{case["number"]}.py'
        path.write_text(''.join(f'{key} = {value!r}\n' for key, value in case['settings'].items()))
        sys.argv = ['train.py', path.name, '--work-dir', str(folder / 'run')]
        spec = importlib.util.spec_from_file_location('train', ROOT / 'tools' / 'train.py')
        train = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(train)
        train.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        print('' if isinstance(end.code, int) else end.code, file=sys.stderr)
    except BaseException:  # as Python itself would end
        status = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def classify(status: int, log: str) -> dict:
    """How a training ended (one of ``ENDS``), and its last words."""
    lines = [line for line in log.splitlines() if line.strip()]
    frames = re.findall(
        r'^ *File "(.+)", line (\d+), in (\S+)', log.rpartition('Traceback (most recent call last)')[2], re.M
    )
    if status == 0:
        return dict(end='trained', says='')
    if status < 0 or status == 9 or 'MemoryError' in log or 'allocate memory' in log:
        return dict(end='limit', says=f'status {status}')
    says = next((line for line in lines if line.startswith('error: ')), lines[-1] if lines else '')[:300]
    if 'Traceback' not in log:
        return dict(end='one line' if says.startswith('error: ') else 'ours', says=says)
    place = f'{"/".join(frames[-1][0].split("/")[-3:])}:{frames[-1][1]}' if frames else ''
    if frames and frames[-1][0].startswith(f'{ROOT}/scopevit/'):
        end = 'ours'
    else:
        ran = any(name in ('run_epoch', 'run_iter', 'run') and 'mmengine' in path for path, _, name in frames)
        end = 'later' if ran else 'building'
    return dict(end=end, says=f'{says} ({place})')


def write_table(rows: list[dict], path: str) -> None:
    counts, by_kind = Counter(row['end'] for row in rows), Counter((_kind(row), row['end']) for row in rows)
    days = sorted({row['date'] for row in rows})
    when = days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'
    lines = [
        '# How trainings with one wrong setting end',
        '',
        f'    {shlex.join(["python", "projects/robustness/mutate_configs.py", *sys.argv[1:]])}',
        '',
        f'{when}, {os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}; '
        f'{len(rows)} cases.',
        '',
        f'| End | Cases | {" | ".join(KINDS)} | Meaning |',
        f'| --- | --- |{" --- |" * len(KINDS)} --- |',
    ]
    for end, meaning in ENDS.items():
        split = ' | '.join(str(by_kind[kind, end]) for kind in KINDS)
        lines.append(f'| {end} | {counts[end]} | {split} | {meaning} |')
    lines += [
        '',
        '## All that ended neither trained nor in one line',
        '',
        '| Config | Change | End | Says |',
        '| --- | --- | --- | --- |',
    ]
    for row in rows:
        if row['end'] not in ('trained', 'one line'):
            lines.append('| ' + ' | '.join(_cell(row[key]) for key in ('config', 'change', 'end', 'says')) + ' |')
    Path(path).write_text('\n'.join(lines) + '\n')


def _cell(text: str) -> str:
    return re.sub(' at 0x[0-9a-f]+', '', text).replace('|', '/').replace('\n', ' ')[:160]


def _kind(row: dict) -> str:
    return KINDS[row['number'] // len(configs()) % len(KINDS)]


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, '--count', default=200, help='how many cases (default: %(default)s)')
    add_case_arguments(parser, 120, 'work_dirs/mutated')
    args = parser.parse_args()
    get_ready_for_children()
    with user_errors():
        folder = Path(args.work_dir).resolve()
        for name, write in DATA.items():
            write(str(folder / 'data/scenes' / name), 0, 8, 4)
        made = cases(args.count, args.seed)
        rows = run_cases(
            folder / f'results_{args.seed}.jsonl',
            args.count,
            lambda number: run(made[number], folder, args.timeout),
            lambda row: f'{row["end"]}: {row["config"][:20]} {row["change"]} {row["says"]}',
        )
        print(', '.join(f'{end}: {count}' for end, count in Counter(row['end'] for row in rows).most_common()))
        if args.table:
            write_table(rows, args.table)


if __name__ == '__main__':
    main()
