"""Train all rows from scratch on small images, with one recipe, one budget and several seeds.

    python tools/data/fashion_mnist.py unpack
    python projects/imagenet_table/train_all.py --out projects/imagenet_table/comparison

Each training is one of tools/train.py. Run the command again after an interruption: finished
trainings are kept, a broken one goes on from its last checkpoint. The recipe is that of the
repository's Fashion-MNIST config in one process; a row changes its model's number of classes,
channels and image size, and nothing else. Tables are written after each round over the rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import matplotlib
import torch
from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import the project's models
matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402

from projects.imagenet_table.rows import ROOT, ROWS, Row, choose_rows  # noqa: E402
from scopevit.analysis import count  # noqa: E402
from scopevit.analysis.benchmark import describe_machine, markdown  # noqa: E402
from scopevit.analysis.networks import load_network  # noqa: E402
from scopevit.engine.errors import UserError, user_errors  # noqa: E402

RECIPE = ROOT / 'configs' / 'classification' / 'scopevit-xtiny_2xb64-18e_fashion-mnist-32px.py'
CLASSES, CHANNELS = 10, 1
OF_LIBRARY = {
    'TimmClassifier': dict(classes='num_classes', channels='in_chans', size='img_size'),
    'HuggingFaceClassifier': dict(classes='num_labels', channels='num_channels', size='image_size'),
}
FIXED_SIZE = ('SwinTransformer', 'VisionTransformer', 'EViT')


def small_model(model: dict, size: int) -> dict:
    """A row's model for grey images of ten classes."""
    names = OF_LIBRARY.get(model['type'])
    if names:
        model.pop('train_cfg', None)  # no mixup and CutMix: they need long schedules
        model.update({names['classes']: CLASSES, names['channels']: CHANNELS})
        if model['model_name'] == 'crossvit_small_240':
            # It resizes images for its two branches, whose patches of 12 and 16 pixels must fill them.
            side = 12 * round(size * 240 / 224 / 12)
            model.update(img_size=side, img_scale=(1.0, (size + 0.5) / side))
        elif model['model_name'] != 'mobilevitv2_150':
            model[names['size']] = size
        return model
    model['train_cfg'] = None
    model['head'].update(num_classes=CLASSES, topk=(1,))
    backbone = model['backbone']
    backbone['in_channels'] = CHANNELS
    if backbone['type'] in FIXED_SIZE:
        backbone['img_size'] = size
    if backbone['type'] == 'SwinTransformer':
        backbone['pad_small_map'] = True  # maps smaller than a window
    return model


def small_config(row: Row, args: argparse.Namespace) -> Config:
    """The config of a row's trainings."""
    cfg, own = Config.fromfile(RECIPE), row.load()
    preprocessor = cfg.model.data_preprocessor
    cfg.model = small_model(own.model, args.size)
    cfg.data_preprocessor = dict(type='ClsDataPreprocessor', **preprocessor)
    cfg.custom_hooks = own.custom_hooks
    if own.get('custom_imports'):
        cfg.custom_imports = own.custom_imports
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = os.path.abspath(args.data)
        if args.images:
            loader.dataset.indices = args.images
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = args.size
            elif step.type == 'RandomCrop':
                step.update(crop_size=args.size, padding=args.size // 16)
    cfg.train_dataloader.batch_size = args.batch
    cfg.optim_wrapper.optimizer.lr = args.lr
    cfg.optim_wrapper.paramwise_cfg = own.optim_wrapper.paramwise_cfg  # what is free of weight decay
    warm_up, cosine = cfg.param_scheduler
    warm_up.end = cosine.begin = max(1, args.epochs // 9)
    cosine.end = cfg.train_cfg.max_epochs = args.epochs
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    return cfg


def prepare(rows: List[Row], args: argparse.Namespace) -> Dict[str, Path]:
    """Write the configs of all rows; in a folder with others nothing is mixed."""
    paths = {}
    for row in rows:
        path = Path(args.folder) / 'configs' / f'{_stem(row)}.py'
        cfg = small_config(row, args)
        if path.exists() and Config.fromfile(path)._cfg_dict != cfg._cfg_dict:
            raise UserError(f'{args.folder} was begun with other settings; give them again, or another --folder')
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        paths[row.name] = path
    return paths


def _stem(row: Row) -> str:
    return Path(row.config).stem.split('_')[0]


def train(row: Row, seed: int, config: Path, args: argparse.Namespace) -> dict:
    """Run one training to its end; returns what it measured.

    Raises:
        UserError: If it fails.
    """
    work_dir = Path(args.folder) / _stem(row) / f'seed{seed}'
    words = [ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir, '--seed', seed, '--resume']
    words += ['--amp'] * args.amp
    log = work_dir.with_suffix('.log')
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        status = subprocess.run(
            [sys.executable, *map(str, words)],
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    if status:
        raise UserError(f'the training of {row.name} with seed {seed} failed; see {log}')
    for checkpoint in work_dir.glob('*.pth'):
        checkpoint.unlink()
    accuracies, losses, seconds = read_log(work_dir)
    iteration = statistics.median(seconds)
    facts = dict(row=row.name, seed=seed, accuracies=accuracies, losses=losses)
    facts['images_per_second'] = round(args.batch / iteration, 2)
    facts['seconds_per_epoch'] = round(-(-count_images(args, 'train') // args.batch) * iteration, 3)
    return facts


def read_log(work_dir: Path) -> Tuple[List[float], List[float], List[float]]:
    """Accuracy and last loss of each epoch, and seconds per iteration, over all parts of a training."""
    accuracies, losses, seconds = {}, {}, []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            entry = json.loads(line) if line.endswith('}') else {}  # the last line of one that was killed
            if 'accuracy/top1' in entry:
                accuracies[entry['step']] = round(entry['accuracy/top1'], 3)
            elif 'loss' in entry:
                seconds.append(entry['time'])
                losses[entry['epoch']] = round(entry['loss'], 4)
    by_epoch = [[values[epoch] for epoch in sorted(values)] for values in (accuracies, losses)]
    return *by_epoch, seconds


def summarise(row: Row, results: List[dict], config: Path, size: int) -> dict:
    """One line of the table."""
    network, _ = load_network(str(config))
    counted = count(network, torch.zeros(1, CHANNELS, size, size))
    last = [result['accuracies'][-1] for result in results]
    facts = dict(name=row.name, parameters=counted.parameters, macs=counted.macs)
    facts.update(seeds=[result['seed'] for result in results], accuracies=last, mean=statistics.mean(last))
    facts['deviation'] = statistics.stdev(last) if len(last) > 1 else None
    for key in ('images_per_second', 'seconds_per_epoch'):
        facts[key] = statistics.median(result[key] for result in results)
    return facts


def table(lines: List[dict]) -> str:
    header = ('Model', 'Parameters', 'MACs', 'Accuracy (%)', 'lowest to highest', 'Seeds', 'Images/s', 's/epoch')
    rows = [header]
    for facts in sorted(lines, key=lambda facts: -facts['mean']):
        spread = '' if facts['deviation'] is None else f' ± {facts["deviation"]:.2f}'
        rows.append(
            (
                facts['name'],
                f'{facts["parameters"] / 1e6:.2f} M',
                f'{facts["macs"] / 1e6:.1f} M',
                f'{facts["mean"]:.2f}{spread}',
                f'{min(facts["accuracies"]):.1f} to {max(facts["accuracies"]):.1f}',
                f'{len(facts["seeds"])}',
                f'{facts["images_per_second"]:.0f}',
                f'{facts["seconds_per_epoch"]:.1f}',
            )
        )
    return markdown(rows)


def draw(results: List[dict], out: Path) -> None:
    """Accuracy over epochs, mean and range over the seeds, and where each seed ended."""
    names = [row.name for row in ROWS if any(result['row'] == row.name for result in results)]
    curves = {name: [result['accuracies'] for result in results if result['row'] == name] for name in names}
    ordered = sorted(names, key=lambda name: statistics.mean(curve[-1] for curve in curves[name]))
    colours = {name: 'black' if name.startswith('ScopeViT') else plt.cm.tab20(i) for i, name in enumerate(names)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), layout='constrained')
    for name in reversed(ordered):
        by_epoch = list(zip(*curves[name]))
        epochs = range(1, len(by_epoch) + 1)
        left.plot(
            epochs,
            [statistics.mean(values) for values in by_epoch],
            label=name,
            color=colours[name],
            linewidth=2.5 if name.startswith('ScopeViT') else 1.3,
        )
        left.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colours[name], alpha=0.12)
        last = by_epoch[-1]
        right.plot(last, [name] * len(last), 'o', color=colours[name], markersize=4, alpha=0.6)
        right.plot(statistics.mean(last), name, '|', color=colours[name], markersize=16, markeredgewidth=2.5)
    lowest = min(min(curve[-1] for curve in curves[name]) for name in names)
    left.set(xlabel='epoch', ylabel='accuracy on held-out images (%)', ylim=(max(0.0, lowest - 15), None))
    left.legend(fontsize='small', loc='lower right')
    right.set(xlabel='accuracy after the last epoch (%): seeds and their mean')
    right.invert_yaxis()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def report(rows: List[Row], results: List[dict], configs: Dict[str, Path], args: argparse.Namespace) -> None:
    """Print the table; with ``--out``, write it with the curves and all numbers."""
    trained = [row for row in rows if any(result['row'] == row.name for result in results)]
    of_row = {row.name: [result for result in results if result['row'] == row.name] for row in trained}
    lines = [summarise(row, of_row[row.name], configs[row.name], args.size) for row in trained]
    print(table(lines))
    if not args.out:
        return
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, out.with_suffix('.png'))
    machine = describe_machine('cuda' if torch.cuda.is_available() else 'cpu')
    facts = dict(date=str(date.today()), machine=machine, settings=vars(args), rows=lines, trainings=results)
    out.with_suffix('.json').write_text(json.dumps(facts, indent=1) + '\n')
    train_images, test_images = (count_images(args, split) for split in ('train', 't10k'))
    error = (0.9 * 0.1 / test_images) ** 0.5
    command = ' '.join(['python projects/imagenet_table/train_all.py', *sys.argv[1:]])
    page = f"""# All rows trained on small images

From scratch on {train_images:,} grey images of clothing (Fashion-MNIST) at {args.size}x{args.size}, tested on
{test_images:,} others: {args.epochs} epochs, batches of {args.batch}, AdamW with learning rate {args.lr}, the same for
all. Accuracy after the last epoch, its mean ± standard deviation over seeds; the choice of test images
alone gives a number near 90 % a standard error of {100 * error:.1f} points. Images/s are those of training.

    {command}

{date.today()}; {machine['device']}, {machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}.

{table(lines)}

![Accuracy over epochs]({out.with_suffix('.png').name})
"""
    out.with_suffix('.md').write_text(page)
    print(f'wrote {", ".join(str(out.with_suffix(end)) for end in (".md", ".json", ".png"))}')


def count_images(args: argparse.Namespace, split: str) -> int:
    """How many images of a split are used, by the header of its file."""
    with open(Path(args.data) / f'{split}-images-idx3-ubyte', 'rb') as file:
        there = int.from_bytes(file.read(8)[4:], 'big')
    return min(there, args.images or there)


def train_all(args: argparse.Namespace) -> None:
    if not (Path(args.data) / 'train-images-idx3-ubyte').is_file():
        raise UserError(f'{args.data} holds no unpacked Fashion-MNIST; run python tools/data/fashion_mnist.py unpack')
    if args.size % 32:
        raise UserError(f'--size must be a multiple of 32, the stride of the rows, but is {args.size}')
    rows = choose_rows(args.rows)
    name = Path(args.data).resolve().name
    args.folder = args.folder or f'work_dirs/imagenet_table/{name}-{args.size}px-{args.epochs}e'
    configs = prepare(rows, args)
    file = Path(args.folder) / 'results.jsonl'
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(result['row'], result['seed']) for result in results}
    failures = []
    for seed in args.seeds:
        todo = [row for row in rows if (row.name, seed) not in done]
        for row in todo:
            print(f'seed {seed}, {row.name} ...', end=' ', flush=True)
            try:
                results.append(train(row, seed, configs[row.name], args))
            except UserError as error:  # the others go on
                failures.append(str(error))
                print('failed', flush=True)
                continue
            with file.open('a') as lines:
                lines.write(json.dumps(results[-1]) + '\n')
            print(f'{results[-1]["accuracies"][-1]:.1f} %, {results[-1]["images_per_second"]:.0f} images/s', flush=True)
        if todo or seed == args.seeds[-1]:
            report(rows, [result for result in results if result['seed'] in args.seeds], configs, args)
    if failures:
        raise UserError('; '.join(failures))


def parse_args(words: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=[], metavar='NAME', help='only these')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--size', type=int, default=32, help='height and width of the images (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=18, help='(default: %(default)s)')
    parser.add_argument('--batch', type=int, default=128, help='images in a batch (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-3, help='learning rate (default: %(default)s)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--data', default='data/fashion_mnist_subset', help='unpacked Fashion-MNIST (default: %(default)s)'
    )
    parser.add_argument('--images', type=int, help='only so many images for training and testing, for a trial')
    parser.add_argument('--folder', help='trainings and results (default: by data, size and epochs in work_dirs)')
    parser.add_argument('--out', metavar='NAME', help='write NAME.md, NAME.json and NAME.png')
    return parser.parse_args(words)


def main() -> None:
    with user_errors():
        train_all(parse_args())


if __name__ == '__main__':
    main()
