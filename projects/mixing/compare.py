"""Train models with each mixing method and without, on small images, with one recipe, one budget and several seeds.

    python tools/data/fashion_mnist.py unpack
    python projects/mixing/compare.py --table projects/mixing/comparison.md --json projects/mixing/comparison.json

First a few steps of each pair of model and method are timed and the whole is estimated (--estimate ends there). Each
training is one of tools/train.py, whose accuracy on the test images is that after the last epoch. Run the command again
after an interruption: finished trainings are kept, a broken one goes on. Table and JSON are written after each seed.

Recipe and models are those of the configs; a training is one process, with the batch that the recipe has in two.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's methods

from projects.imagenet_table.small import count_images  # noqa: E402
from projects.imagenet_table.train_all import locked, read_log, remove_checkpoints  # noqa: E402
from projects.mixing.methods.stages import show_backbone  # noqa: E402
from projects.mixing.settings import METHODS, MODELS, ROOT, config_of  # noqa: E402
from scopevit.analysis.machine import describe_machine, machine_in_words  # noqa: E402
from scopevit.apis.model import build_model  # noqa: E402
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402
from scopevit.utils.files import require_writable_file, write_json, write_whole  # noqa: E402

START_UP = 15.0  # seconds of a training before its first step and after its last
SETTINGS = ('data', 'epochs', 'batch_size', 'count')


def write_config(model: str, method: str, args: argparse.Namespace) -> Path:
    """The config of a pair's trainings, in the work dir.

    Raises:
        UserError: If the pair was begun with another recipe.
    """
    cfg = config_of(model, method)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = os.path.abspath(args.data)
    cfg.train_dataloader.batch_size = args.batch_size
    cfg.train_dataloader.dataset.indices = args.count
    warm_up, cosine = cfg.param_scheduler
    part = args.epochs / cfg.train_cfg.max_epochs
    # Converted to iterations, of which there must be one.
    warm_up.end = cosine.begin = max(warm_up.end * part, args.batch_size / args.count)
    cosine.end = cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = args.epochs
    path = Path(args.work_dir) / model / f'{method}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix('').exists() and path.exists()
    if begun and Config.fromfile(path).to_dict() != cfg.to_dict():
        raise UserError(
            f'the recipe has changed since {path} was written; put that one back, or give another --work-dir'
        )
    cfg.dump(path)
    return path


def folder_of(model: str, method: str, seed: int, args: argparse.Namespace) -> Path:
    return Path(args.work_dir) / model / method / f'seed{seed}'


def finished(model: str, method: str, seed: int, args: argparse.Namespace) -> dict | None:
    """What a training measured, if it was run to its end."""
    file = folder_of(model, method, seed, args) / 'result.json'
    return json.loads(file.read_text()) if file.exists() else None


def train(model: str, method: str, seed: int, args: argparse.Namespace) -> dict:
    """Run one training to the end, unless that was done before; returns what was measured.

    Raises:
        UserError: If it fails.
    """
    config = write_config(model, method, args)
    result = finished(model, method, seed, args)
    if result is not None:
        return result
    work_dir, log = folder_of(model, method, seed, args), folder_of(model, method, seed, args).with_suffix('.log')
    print(f'{model}, {method}, seed {seed} ...', end=' ', flush=True)
    machine = describe_machine('cuda' if torch.cuda.is_available() else 'cpu')
    work_dir.mkdir(parents=True, exist_ok=True)
    words = [config, '--work-dir', work_dir, '--seed', seed, '--resume', '--auto-scale-lr']
    with log.open('a') as file:
        command = [sys.executable, str(ROOT / 'tools' / 'train.py'), *map(str, words)]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        # close_fds=False: it inherits the folder's lock, and nothing else.
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, close_fds=False)
    measured = read_log(work_dir)
    if done.returncode or args.epochs not in measured.held_out:
        print('failed', flush=True)
        raise UserError(f'the training failed; see {log}')
    result = dict(model=model, method=method, seed=seed, accuracy=measured.held_out[args.epochs])
    result.update(ms_per_step=round(1000 * statistics.median(measured.times), 2), machine=machine)
    write_json(str(work_dir / 'result.json'), result)
    remove_checkpoints(work_dir)
    print(f'{result["accuracy"]:.1f} %', flush=True)
    return result


def ms_per_step(cfg: Config, batch: int, rounds: int = 3) -> float:
    """Median milliseconds of a forward and backward pass with mixing, on the CPU or the GPU."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = build_model(cfg).to(device).train()
    show_backbone(model)
    data = random_batch(batch)
    times = []
    for _ in range(rounds + 1):  # the first one is a warm-up
        begin = time.perf_counter()
        inputs = model.data_preprocessor(data, True)
        sum(model(**inputs, mode='loss').values()).backward()
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def random_batch(count: int) -> dict:
    """A batch of grey 32x32 images of ten classes, as a data loader makes them."""
    from mmpretrain.structures import DataSample

    images = torch.randint(256, (count, 1, 32, 32), dtype=torch.uint8)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i % 10) for i in range(count)])


def estimate(args: argparse.Namespace) -> None:
    """Time a few steps of each pair that has trainings left, and say how long these will take."""
    total, trainings = 0.0, 0
    for model in args.models:
        for method in args.methods:
            config = write_config(model, method, args)
            left = sum(finished(model, method, seed, args) is None for seed in range(args.seeds))
            if not left:
                continue
            step = ms_per_step(Config.fromfile(config), args.batch_size)
            seconds = args.epochs * -(-args.count // args.batch_size) * step / 1000 + START_UP
            print(f'{model}, {method}: {step:.0f} ms a step, about {seconds / 60:.1f} min a training', flush=True)
            total, trainings = total + left * seconds, trainings + left
    print(f'{trainings} trainings, about {total / 3600:.1f} h in all', flush=True)


def claim(args: argparse.Namespace) -> None:
    """Write a folder's settings down, unless only an estimate is wanted; a folder with others is refused.

    Raises:
        UserError: If it was begun with others.
    """
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings['data'] = os.path.abspath(args.data)
    file = Path(args.work_dir) / 'settings.json'
    begun = json.loads(file.read_text()) if file.exists() else settings
    if begun != settings:
        raise UserError(f'{args.work_dir} was begun with {begun}; give the same, or another --work-dir')
    if not args.estimate:
        write_json(str(file), settings)


def table(results: list[dict], args: argparse.Namespace) -> str:
    """For each model a table of its methods, in Markdown."""
    sections = []
    for model in args.models:
        of_method = {m: [r for r in results if (r['model'], r['method']) == (model, m)] for m in args.methods}
        plain = [result['accuracy'] for result in of_method.get('none', [])]
        seeds_of_plain = [result['seed'] for result in of_method.get('none', [])]
        lines = [f'## {model}', '']
        lines += ['| Method | Accuracy (%) | lowest to highest | against none | Seeds | ms/step |']
        lines += ['| --- | ---: | ---: | ---: | ---: | ---: |']
        for method, own in of_method.items():
            if not own:
                continue
            accuracies = [result['accuracy'] for result in own]
            mean, step = statistics.mean(accuracies), statistics.median(result['ms_per_step'] for result in own)
            # Of the same seeds alone; while seeds are missing there is nothing to compare.
            are_of_the_same = [result['seed'] for result in own] == seeds_of_plain
            against = f'{mean - statistics.mean(plain):+.2f}' if are_of_the_same and method != 'none' else ''
            span = f'{min(accuracies):.1f} to {max(accuracies):.1f}'
            lines.append(f'| {method} | {mean:.2f} | {span} | {against} | {len(own)} | {step:.0f} |')
        sections.append('\n'.join(lines))
    return '\n\n'.join(sections) + '\n'


def in_words(machine: dict) -> str:
    return machine_in_words({key: value for key, value in machine.items() if key != 'load'})


def page(results: list[dict], args: argparse.Namespace) -> str:
    """The tables with what they rest on."""
    machines = dict.fromkeys(in_words(result['machine']) for result in results)
    missing = [
        f'{model} {method} seed {seed}'
        for model in args.models
        for method in args.methods
        for seed in range(args.seeds)
        if finished(model, method, seed, args) is None
    ]
    return (
        f'# Mixing methods on small images\n\n'
        f'{args.count:,} grey training images of 32x32 (Fashion-MNIST), {args.epochs} epochs in batches of '
        f'{args.batch_size}; accuracy on {count_images(args.data, "t10k"):,} test images after the last epoch, mean '
        'over seeds. Nothing was chosen by these images; no setting of a method was searched.\n\n'
        f'    python projects/mixing/compare.py {shlex.join(sys.argv[1:])}\n\n'
        f'{table(results, args)}\n'
        f'{"Missing: " + ", ".join(missing) if missing else "No training is missing"}.\n\n'
        + '\n\n'.join(machines)
        + '\n'
    )


def compare(args: argparse.Namespace) -> None:
    """Do all trainings, seed by seed.

    Raises:
        UserError: For settings that cannot be; at the end, if trainings failed.
    """
    most = count_images(args.data, 'train')
    if not args.batch_size <= args.count <= most:
        raise UserError(f'--count must be from --batch-size, {args.batch_size}, to {most}, but is {args.count}')
    for option in ('table', 'json'):
        if getattr(args, option):
            require_writable_file(getattr(args, option), f'--{option}')
    with locked(args.work_dir):
        claim(args)
        estimate(args)
        if args.estimate:
            return
        results, failures = [], []
        for seed in range(args.seeds):
            for model in args.models:
                for method in args.methods:
                    try:
                        results.append(train(model, method, seed, args))
                    except UserError as error:  # the others go on
                        failures.append(f'{model}, {method}, seed {seed}: {error}')
            print(table(results, args), flush=True)
            if args.table:
                write_whole(args.table, page(results, args))
            if args.json:
                write_json(args.json, results)
    if failures:
        raise UserError('; '.join(failures))


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    names = dict(nargs='+', metavar='NAME')
    parser.add_argument(
        '--models', choices=list(MODELS), default=list(MODELS), help=f'of {", ".join(MODELS)} (default: all)', **names
    )
    parser.add_argument(
        '--methods', choices=METHODS, default=list(METHODS), help=f'of {", ".join(METHODS)} (default: all)', **names
    )
    parser.add_argument(
        '--seeds', type=positive, default=3, metavar='N', help='how many, from 0 on (default: %(default)s)'
    )
    parser.add_argument('--epochs', type=positive, default=9, metavar='N', help='(default: %(default)s)')
    add_arguments(parser, '--count', default=6000, help='images to train on (default: %(default)s)')
    add_arguments(parser, '--batch-size', default=128)
    parser.add_argument(
        '--data',
        default='data/fashion_mnist_subset',
        metavar='DIR',
        help='unpacked Fashion-MNIST (default: %(default)s)',
    )
    add_arguments(parser, '--work-dir', default='work_dirs/mixing')
    add_arguments(parser, '--table', '--json')
    parser.add_argument('--estimate', action='store_true', help='only say how long it will take')
    return parser.parse_args(words)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and with this process the training that it runs
    with user_errors():
        compare(parse_args())


if __name__ == '__main__':
    main()
