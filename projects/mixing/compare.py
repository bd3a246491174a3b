"""Train models with each mixing method and without, on small images, with one recipe, one budget and several seeds.

    python tools/data/fashion_mnist.py unpack
    python projects/mixing/compare.py --table projects/mixing/comparison.md --json projects/mixing/comparison.json

First a few steps of each pair of model and method are timed and the whole is estimated (--estimate ends there). Each
training is one of tools/train.py, whose accuracy on the test images is that after the last epoch. Run the command again
after an interruption: finished trainings are kept, a broken one goes on. Table and JSON are written after each seed.

Recipe and models are those of the configs; a training is one process, with the batch that the recipe has in two.
"""

import argparse
import functools
import itertools
import os
import shlex
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's methods

from projects.imagenet_table.small import count_images  # noqa: E402
from projects.mixing.methods.stages import show_backbone  # noqa: E402
from projects.mixing.settings import METHODS, MODELS, config_of  # noqa: E402
from projects.trainings import Training, comparing, device, machines_of, read_log, write_results  # noqa: E402
from scopevit.apis.model import build_model  # noqa: E402
from scopevit.utils.arguments import add_arguments, positive, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402

START_UP = 15.0  # seconds of a training before its first step and after its last


def pair_config(model: str, method: str, args: argparse.Namespace) -> Path:
    """Where the config of a pair's trainings is."""
    return Path(args.work_dir).resolve() / model / f'{method}.py'


def write_config(model: str, method: str, args: argparse.Namespace) -> Path:
    """Write the config of a pair's trainings."""
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
    path = pair_config(model, method, args)
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    return path


def trainings_of(seed: int, args: argparse.Namespace) -> list[Training]:
    """Those of all pairs with this seed; their configs have been written."""
    return [
        Training(
            name=f'{model}, {method}, seed {seed}',
            folder=pair_config(model, method, args).with_suffix('') / f'seed{seed}',
            config=pair_config(model, method, args),
            facts=dict(model=model, method=method, seed=seed),
            words=('--auto-scale-lr',),
        )
        for model in args.models
        for method in args.methods
    ]


def missing(args: argparse.Namespace) -> list[Training]:
    """Those that are not finished."""
    trainings = [training for seed in range(args.seeds) for training in trainings_of(seed, args)]
    return [training for training in trainings if training.result() is None]


def measure(ended: Training, epochs: int) -> dict | None:
    """The accuracy after the last epoch, and the median time of a step."""
    log = read_log(ended.folder)
    accuracies = {line['step']: line['accuracy/top1'] for line in log.validations if 'accuracy/top1' in line}
    if epochs not in accuracies:
        return None
    step = statistics.median(step['time'] for step in log.steps.values())
    return dict(accuracy=round(accuracies[epochs], 3), ms_per_step=round(1000 * step, 2))


def ms_per_step(cfg: Config, batch: int, rounds: int = 3) -> float:
    """Median milliseconds of a forward and backward pass with mixing, on the CPU or the GPU."""
    model = build_model(cfg).to(device()).train()
    show_backbone(model)
    data = random_batch(batch)
    times = []
    for _ in range(rounds + 1):  # the first one is a warm-up
        begin = time.perf_counter()
        inputs = model.data_preprocessor(data, True)
        sum(model(**inputs, mode='loss').values()).backward()
        if device() == 'cuda':
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
    total, left = 0.0, Counter(training.config for training in missing(args))
    for config, count in left.items():
        step = ms_per_step(Config.fromfile(config), args.batch_size)
        seconds = args.epochs * -(-args.count // args.batch_size) * step / 1000 + START_UP
        pair = f'{config.parent.name}, {config.stem}'
        print(f'{pair}: {step:.0f} ms a step, about {seconds / 60:.1f} min a training', flush=True)
        total += count * seconds
    print(f'{left.total()} trainings, about {total / 3600:.1f} h in all', flush=True)


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


def page(results: list[dict], args: argparse.Namespace) -> str:
    """The tables with what they rest on."""
    absent = ', '.join(training.name.replace(',', '') for training in missing(args))
    return (
        f'# Mixing methods on small images\n\n'
        f'{args.count:,} grey training images of 32x32 (Fashion-MNIST), {args.epochs} epochs in batches of '
        f'{args.batch_size}; accuracy on {count_images(args.data, "t10k"):,} test images after the last epoch, mean '
        'over seeds. Nothing was chosen by these images; no setting of a method was searched.\n\n'
        f'    python projects/mixing/compare.py {shlex.join(sys.argv[1:])}\n\n'
        f'{table(results, args)}\n'
        f'{f"Missing: {absent}" if absent else "No training is missing"}.\n\n'
        f'{machines_of(results)}\n'
    )


def compare(args: argparse.Namespace) -> None:
    """Do all trainings, seed by seed.

    Raises:
        UserError: For settings that cannot be; at the end, if trainings failed.
    """
    most = count_images(args.data, 'train')
    if not args.batch_size <= args.count <= most:
        raise UserError(f'--count must be from --batch-size, {args.batch_size}, to {most}, but is {args.count}')
    says = '{accuracy:.1f} %'.format_map
    with comparing(args, functools.partial(measure, epochs=args.epochs), says) as trainer:
        for model, method in itertools.product(args.models, args.methods):
            write_config(model, method, args)
        estimate(args)
        if args.estimate:
            return
        results = []
        for seed in range(args.seeds):
            results += trainer.run(trainings_of(seed, args))
            print(table(results, args), flush=True)
            write_results(args, page(results, args), results)


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
    with user_errors():
        compare(parse_args())


if __name__ == '__main__':
    main()
