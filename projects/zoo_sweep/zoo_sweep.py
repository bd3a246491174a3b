"""Swap the backbone in every model config of the installed toolboxes, and train each for one step.

    python projects/zoo_sweep/zoo_sweep.py --only 'mmdet/fcos/*'

For each config: build the original, swap, build, run on a small batch without post-processing, and
take one loss with a backward pass. Results are appended to a JSON-lines file, so that a sweep
that was stopped goes on where it was; the table is written from that file.
"""

import argparse
import collections
import csv
import fnmatch
import hashlib
import importlib.util
import json
import logging
import multiprocessing
import os
import random
import re
import time
import traceback
import warnings
from pathlib import Path

import torch
import yaml
from batches import parse_losses, trial_batch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn

from scopevit.apis.model import in_scope, runnable
from scopevit.models import ScopeViT
from scopevit.swap import SwapError, swap_backbone
from scopevit.swap.probe import build_uninitialised
from scopevit.swap.trial import SIZES, small_model, try_model
from scopevit.utils.arguments import positive, tool_parser
from scopevit.utils.config import walk
from scopevit.utils.errors import UserError, one_line, user_errors

TOOLBOXES = ('mmdet', 'mmpose', 'mmpretrain', 'mmseg')
FOLDER = Path(__file__).resolve().parent
COLUMNS = ('config', 'status', 'way', 'same model as', 'reason')
# In the order of the table. The first four are the denominator.
STATUSES = dict(
    works='swapped, built, run, one finite loss with gradients in the backbone',
    refused='the swap names what it cannot adapt',
    untrained='swapped, built and run; takes no loss, and the original config does not either',
    failed='the swap succeeds, but the model does not run or train',
    excluded='nothing to swap; see exclusions.yml',
    original='the original config does not load or build here',
    fragment='a file without a model, for other configs to include',
)


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('--arch', default='tiny', help='xtiny, tiny or small (default: %(default)s)')
    parser.add_argument(
        '--results',
        default='work_dirs/zoo_sweep.jsonl',
        metavar='FILE',
        help='results are appended to it (default: %(default)s)',
    )
    parser.add_argument('--toolbox', choices=TOOLBOXES, help='only this one (default: all)')
    parser.add_argument('--only', metavar='PATTERN', default='*', help="configs like 'mmdet/fcos/*' (default: all)")
    parser.add_argument(
        '--part', metavar='I/N', default='1/1', help='every N-th config, starting with the I-th (default: all)'
    )
    parser.add_argument(
        '--again', metavar='STATUS', nargs='+', default=[], help='statuses to run again (default: none)'
    )
    parser.add_argument(
        '--from-table', action='store_true', help='count rows of the committed table as results, to run only some again'
    )
    parser.add_argument(
        '--timeout', type=positive, default=300, metavar='SECONDS', help='for one config (default: %(default)s)'
    )
    parser.add_argument('--write-table', action='store_true', help=f'write the table to {FOLDER.name}/ and run nothing')
    return parser.parse_args()


def all_configs() -> dict[str, str]:
    """Names such as mmdet/fcos/fcos_r50.py, and paths, of the configs in the installed wheels."""
    configs = {}
    for toolbox in TOOLBOXES:
        folder = Path(importlib.util.find_spec(toolbox).origin).parent / '.mim' / 'configs'
        for path in sorted(folder.rglob('*.py')):
            if '_base_' not in path.parts:
                configs[f'{toolbox}/{path.relative_to(folder)}'] = str(path)
    return configs


def exclusion(cfg: Config) -> str | None:
    """The reason for which a config is excluded; None for all others."""
    backbone = cfg.model.get('backbone')
    kinds = dict(model=cfg.model.get('type'), backbone=backbone.get('type') if isinstance(backbone, dict) else None)
    for rule in yaml.safe_load((FOLDER / 'exclusions.yml').read_text()):
        if any(kind in rule.get(part, ()) for part, kind in kinds.items()):
            return rule['reason']
    return None


# One config


def examine(name: str, path: str, arch: str, known: dict[str, dict]) -> dict:
    """The table's row for one config; ``known`` maps fingerprints of models to rows."""
    try:
        cfg = Config.fromfile(path)
        if cfg.get('model') is None:
            return dict(status='fragment', reason='')
        if cfg.get('default_scope') is None:
            cfg.default_scope = name.split('/')[0]
    except Exception as error:
        return dict(status='original', reason=f'does not load: {short(error)}')
    reason = exclusion(cfg)
    if reason is not None:
        return dict(status='excluded', reason=reason)
    before = fingerprint(cfg)
    if before in known:
        return {**known[before], 'before': None, 'after': None}
    row = examine_model(cfg, arch, known)
    return {**row, 'before': before}


def examine_model(cfg: Config, arch: str, known: dict[str, dict]) -> dict:
    try:
        build_uninitialised(small_model(cfg), cfg.default_scope)
    except Exception as error:
        return dict(status='original', reason=f'does not build: {short(error)}')

    tried = []  # the model that worked, to train it

    def check(candidate: Config) -> None:
        if fingerprint(candidate) not in known:
            tried[:] = try_model(candidate)

    try:
        new = swap_backbone(cfg, arch, check=check)
    except SwapError as error:
        return dict(status='refused', reason=short(error, 400))
    except Exception as error:
        return dict(status='failed', reason=f'swap: {where(error)}')
    after = fingerprint(new)
    if after in known:
        return {**known[after], 'before': None, 'after': None}
    if new.model.type == 'ImageClassifier' and not new.model.get('head'):
        return dict(status='untrained', reason='it has no head, which would give a loss', way=way(new))
    try:
        train_step(new, *tried)
    except NotImplementedError as error:
        return dict(status='untrained', reason=f'its head does not train in the toolbox: {where(error)}', way=way(new))
    except Exception as error:
        try:
            train_step(cfg, *try_model(cfg))
        except Exception as original:
            if short(original) == short(error):
                reason = f'the original does not train on these samples either: {where(error)}'
                return dict(status='untrained', reason=reason, way=way(new))
        return dict(status='failed', reason=where(error), after=after)
    return dict(status='works', reason='', way=way(new), after=after)


def train_step(cfg: Config, model: nn.Module, smallest: int) -> None:
    """One loss with a backward pass, as in training; raises if it is not finite or does not reach the backbone."""
    torch.manual_seed(0)
    for parameter in model.parameters():  # a head that starts at zero passes no gradient on in its first step
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    _, part = runnable(cfg, model)
    for key in ('epoch', 'iter'):  # as the Runner does; some heads train in steps
        MessageHub.get_current_instance().update_info(key, 0)
    with in_scope(cfg.default_scope):
        model.train()
        for size in [size for size in SIZES if size >= smallest]:
            try:
                loss = parse_losses(part(**trial_batch(cfg, model, size, training=True), mode='loss'))
                break
            except Exception:  # heads for large images run out of pixels in training as well
                if size == SIZES[-1]:
                    raise
    if not torch.isfinite(loss):
        raise ValueError(f'the loss is {float(loss)}')
    loss.backward()
    gradients = [parameter.grad for parameter in part.backbone.parameters() if parameter.grad is not None]
    if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        raise ValueError('no finite gradients in the backbone')
    if isinstance(part.backbone, ScopeViT) and not part.backbone.stages[0].patch_embed[0].weight.grad.abs().sum() > 0:
        raise ValueError('the gradient does not reach the first layer of the backbone')


def way(cfg: Config) -> str:
    types = [str(settings.get('type')) for settings in walk(cfg.model)]
    return 'adapter' if 'scopevit.LevelAdapter' in types else 'channels'


def fingerprint(cfg: Config) -> str:
    """Equal for configs whose models and targets are the same: others differ in data, schedule or weights."""
    target = [t for t in walk(cfg.get('train_dataloader') or {}) if t.get('type') == 'GenerateTarget']
    content = [small_model(cfg), target[:1], cfg.get('codec'), cfg.get('default_scope')]
    return hashlib.sha1(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def short(error: Exception, length: int = 200) -> str:
    text = str(error) if isinstance(error, SwapError) else one_line(error, 10 * length)
    return re.sub(r"[^\s'\"]*/site-packages/", '', text)[:length]  # paths are this machine's


def where(error: Exception) -> str:
    """An error with the place where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{short(error)} ({Path(frame.filename).name}:{frame.lineno})'


# All configs


def work(pipe: multiprocessing.connection.Connection, todo: list[tuple[str, str]], arch: str, known: dict) -> None:
    """In a process of its own: send a row for each config, until one kills or blocks the process."""
    import socket

    def no_network(*args: object) -> None:
        raise OSError('the sweep downloads nothing')

    socket.socket.connect = no_network
    logging.disable(logging.CRITICAL)
    torch.set_flush_denormal(True)  # LayerScale starts at 1e-6: gradients of untrained models are tiny, and slow
    warnings.filterwarnings('ignore')
    for name, path in todo:
        start = time.time()
        try:
            row = examine(name, path, arch, known)
        except Exception as error:
            row = dict(status='failed', reason=f'sweep: {where(error)}')
        row = dict(name=name, **{'same_as': '', 'way': '', **row}, seconds=round(time.time() - start, 1))
        remember(row, known)
        pipe.send(row)


def remember(row: dict, known: dict[str, dict]) -> None:
    for key in ('before', 'after'):
        if row.get(key) and row[key] not in known:
            known[row[key]] = {k: row[k] for k in ('status', 'reason', 'way')} | dict(same_as=row['name'])


def sweep(todo: list[tuple[str, str]], args: argparse.Namespace, known: dict[str, dict]) -> None:
    context = multiprocessing.get_context('fork')  # the toolboxes are imported once
    done = 0
    while done < len(todo):
        batch = todo[done : done + 100]
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(sender, batch, args.arch, known), daemon=True)
        process.start()
        sender.close()
        for name, _ in batch:
            row = receive(receiver, args.timeout)
            ended = isinstance(row, str)
            if ended:
                process.kill()
                row = dict(name=name, status='failed', reason=row, same_as='', way='', seconds=args.timeout)
            remember(row, known)
            with open(args.results, 'a') as file:
                file.write(json.dumps(row) + '\n')
            done += 1
            print(f'{done}/{len(todo)} {name}: {row["status"]} {row["reason"][:300]}', flush=True)
            if ended:
                break
        process.join()
        receiver.close()


def receive(pipe: multiprocessing.connection.Connection, timeout: int) -> dict | str:
    """The next row, or why there will be none."""
    try:
        return pipe.recv() if pipe.poll(timeout) else f'longer than {timeout} s'
    except EOFError:
        return 'the process died'


def read_results(path: str) -> dict[str, dict]:
    """The latest row for each config."""
    if not os.path.isfile(path):
        return {}
    with open(path) as file:
        return {row['name']: row for row in map(json.loads, file)}


def read_table() -> dict[str, dict]:
    """The rows of the committed table."""
    with open(FOLDER / 'results.csv', newline='') as file:
        rows = list(csv.reader(file))[1:]
    return {
        name: dict(name=name, status=status, way=way, same_as=same_as, reason=reason)
        for name, status, way, same_as, reason in rows
    }


def write_table(rows: dict[str, dict]) -> None:
    """Raises if a config has no row: the table is of all or none."""
    missing = [name for name in all_configs() if name not in rows]
    if missing:
        raise UserError(
            f'{len(missing)} configs have no result, among them {missing[0]}: run the sweep to its end before --table, '
            'or add --from-table to take what is missing from the committed table, which is left as it was'
        )
    with open(FOLDER / 'results.csv', 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for name, row in sorted(rows.items()):
            writer.writerow((name, row['status'], row['way'], row['same_as'], row['reason']))


def summary(rows: dict[str, dict]) -> str:
    counts = collections.Counter((name.split('/')[0], row['status']) for name, row in rows.items())
    lines = ['| |' + ''.join(f' {toolbox} |' for toolbox in (*TOOLBOXES, 'total'))]
    lines.append('| --- |' + ' --- |' * (len(TOOLBOXES) + 1))
    table = {status: [counts[toolbox, status] for toolbox in TOOLBOXES] for status in STATUSES}
    table = {status: [*numbers, sum(numbers)] for status, numbers in table.items()}
    denominator = [sum(numbers) for numbers in zip(*(table[s] for s in ('works', 'refused', 'untrained', 'failed')))]
    for status, numbers in table.items():
        lines.append(f'| {status} |' + ''.join(f' {n} |' for n in numbers))
    lines.append('| denominator |' + ''.join(f' {n} |' for n in denominator))
    share = [f'{100 * n / max(d, 1):.1f} %' for n, d in zip(table['works'], denominator)]
    lines.append('| works |' + ''.join(f' {s} |' for s in share))
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    with user_errors():
        committed = read_table() if args.from_table else {}
        rows = {**committed, **read_results(args.results)}
        if not args.write_table:
            torch.set_num_threads(1)  # processes are forked, which threads do not survive
            for toolbox in TOOLBOXES:
                importlib.import_module(f'{toolbox}.models')
            first, step = map(int, args.part.split('/'))
            names = {
                name: path
                for name, path in all_configs().items()
                if fnmatch.fnmatch(name, args.only) and name.split('/')[0] in (args.toolbox or TOOLBOXES)
            }
            todo = list(names.items())
            random.Random(0).shuffle(todo)  # what has run so far is a fair sample of all
            todo = todo[first - 1 :: step]
            todo = [(n, p) for n, p in todo if n not in rows or rows[n]['status'] in args.again]
            known = {}
            for row in rows.values():
                if row['status'] not in args.again:
                    remember(row, known)
            os.makedirs(os.path.dirname(os.path.abspath(args.results)), exist_ok=True)
            sweep(todo, args, known)
            rows = {**committed, **read_results(args.results)}
        else:
            write_table(rows)
        print(summary(rows))


if __name__ == '__main__':
    main()
