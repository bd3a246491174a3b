"""How hard the synthetic scenes are: the quick start's results beside two controls.

    bash tools/quickstart.sh --task all
    python projects/scenes/controls.py work_dirs/quickstart/TIME --table projects/scenes/controls.md

The controls train with the same configs, data and schedules: a ScopeViT-xtiny whose backbone
stays as it was drawn at random, so that only neck and head learn, and a ResNet-18, pretrained on
the scenes' classification set as ours is. A run that is finished is not repeated, one that was broken
off goes on. Classification has another one, softmax regression on colour histograms. The exit status
is 1 if the random backbone comes within 0.15 of ours in any dense metric, or the histograms give away
more than 60 % of the classes.
"""

import contextlib
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from mmengine.config import Config
from torch import Tensor

PROJECT = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT.parents[1]))  # for what projects share

from projects.trainings import ROOT, Trainer, Training, comparing, finished  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402

METRICS = {
    'accuracy/top1': ('top-1 accuracy', 0.01),
    'coco/bbox_mAP_50': ('box AP50', 1),
    'coco/segm_mAP_50': ('mask AP50', 1),
    'mIoU': ('mIoU', 0.01),
    'coco/AP': ('keypoint AP', 1),
}
# Not `frozen_stages`: its batch norms would never see the data's statistics.
RANDOM_BACKBONE = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0'
MARGIN = 0.15
MOST_BY_COLOUR = 0.6
COLOUR_BINS = 6  # of each channel
# Channels of a ResNet-18's stages; where heads and necks say how many channels they take.
CHANNELS = (64, 128, 256, 512)


def configs() -> list:
    """The scenes' configs, pretraining first, as the metafile lists them."""
    return [model['Config'] for model in yaml.safe_load((PROJECT / 'metafile.yml').read_text())['Models']]


def resnet18(config: str, folder: Path) -> Path:
    """Write the config with a ResNet-18 in place of the backbone."""
    cfg = Config.fromfile(ROOT / config)
    indices = cfg.model.backbone.get('out_indices', (3,))
    channels = [CHANNELS[i] for i in indices]
    model = dict(backbone=dict(_delete_=True, type='mmpretrain.ResNet', depth=18, out_indices=tuple(indices)))
    if 'in_channels' in (cfg.model.get('neck') or {}):
        model['neck'] = dict(in_channels=channels)
    else:
        head = 'decode_head' if 'decode_head' in cfg.model else 'head'
        model[head] = dict(in_channels=channels if 'decode_head' in cfg.model else channels[-1])
    if cfg.model.get('auxiliary_head'):
        model['auxiliary_head'] = dict(in_channels=channels[cfg.model.auxiliary_head.in_index])
    # mmpretrain's ResNet cannot tell the depth of its layers: all learn at the full rate.
    optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor')
    path = folder / f'resnet18_{Path(config).name}'
    path.write_text(f'_base_ = {str(ROOT / config)!r}\nmodel = {model!r}\noptim_wrapper = {optim_wrapper!r}\n')
    return path


def training(kind: str, config: str, folder: Path, pretrained: str | None = None) -> Training:
    """A control in place of one of the scenes' configs."""
    is_frozen = kind == 'frozen'
    return Training(
        name=f'{kind}, {Path(config).stem}',
        folder=folder / kind / Path(config).stem,
        config=ROOT / config if is_frozen else resnet18(config, folder),
        facts=dict(seed=0),
        options=(RANDOM_BACKBONE,) * is_frozen,
        pretrained=pretrained,
        processes=2,
        is_tested=True,
        keeps_checkpoints=True,
    )


def measure(ended: Training) -> dict:
    return dict(metrics=json.loads((ended.folder / 'test' / 'metrics.json').read_text()))


def says(result: dict) -> str:
    metrics = result['metrics']
    return ', '.join(f'{name} {metrics[key] * scale:.3f}' for key, (name, scale) in METRICS.items() if key in metrics)


def control(kind: str, folder: Path, trainer: Trainer | None) -> dict:
    """All metrics of one kind of control, by config; without a trainer of those that are finished."""
    pretraining, *others = configs()
    results, pretrained = {}, None
    for config in others if kind == 'frozen' else configs():
        own = training(kind, config, folder, pretrained)
        for result in trainer.run([own]) if trainer else finished([own]):
            results[Path(config).stem] = result['metrics']
        if config == pretraining:
            if not results:
                break  # the others start with it
            last = own.folder / 'last_checkpoint'
            if not last.exists():
                raise UserError(f'{last} is missing: the other controls start with the checkpoint that it names')
            pretrained = last.read_text()
    return results


def histogram(image: np.ndarray) -> np.ndarray:
    """Square roots of the shares of an image's colours."""
    counts = cv2.calcHist([image], [0, 1, 2], None, [COLOUR_BINS] * 3, [0, 256] * 3).flatten()
    return np.sqrt(counts / counts.sum())


def accuracy_by_colour(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> float:
    """Top-1 of softmax regression on histograms (N, bins) with labels (N,), by the best of three weight decays."""
    (x, y), (x_val, y_val) = train, val
    best = 0.0
    for decay in (1e-4, 1e-3, 1e-2):
        weight = torch.zeros(x.shape[1], int(y.max()) + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=200)

        def loss(weight: Tensor = weight, optimizer: torch.optim.LBFGS = optimizer, decay: float = decay) -> Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(x @ weight, y) + decay * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        best = max(best, ((x_val @ weight).argmax(1) == y_val).double().mean().item())
    return best


def histograms_of(folder: Path) -> tuple[Tensor, Tensor]:
    """Histograms and labels of the images in class folders."""
    files = sorted(folder.glob('*/*.JPEG'))
    names = sorted({file.parent.name for file in files})
    rows = np.stack([histogram(cv2.imread(str(file))) for file in files])
    return torch.from_numpy(rows), torch.tensor([names.index(file.parent.name) for file in files])


def too_close(found: dict) -> list:
    """The dense metrics in which a random backbone is less than ``MARGIN`` below ours."""
    return [
        f'{name}: {metric}'
        for name, metrics in found['frozen'].items()
        for key, (metric, scale) in METRICS.items()
        if key in metrics and (found['ours'][name][key] - metrics[key]) * scale < MARGIN
    ]


def write_table(found: dict, path: str) -> None:
    titles = dict(ours='ScopeViT-xtiny', frozen='the same, backbone left random', resnet18='ResNet-18')
    lines = [
        '# How hard the synthetic scenes are',
        '',
        'Held-out scenes; the same configs, data, schedules and seed for all. Only the learning rate differs: it is',
        'the same for all layers of the ResNet-18, lower near the image in ScopeViT.',
        '',
        '    bash tools/quickstart.sh --task all',
        f'    python projects/scenes/controls.py work_dirs/quickstart/TIME --table {path}',
        '',
        f'{date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}).',
        '',
        f'| Config | Metric | {" | ".join(titles.values())} |',
        '| --- | --- | --- | --- | --- |',
    ]
    for config in configs():
        name = Path(config).stem
        for key, (metric, scale) in METRICS.items():
            if key in found['ours'][name]:
                values = [found[kind].get(name, {}).get(key) for kind in titles]
                cells = ['' if value is None else f'{value * scale:.3f}' for value in values]
                lines.append(f'| {name} | {metric} | {" | ".join(cells)} |')
    if any(len(found[kind]) < len(found['ours']) - (kind == 'frozen') for kind in titles):
        lines += ['', 'Empty cells were not trained yet.']
    lines += ['', f'Softmax regression on colour histograms: top-1 accuracy {found["colour"]:.3f}.']
    Path(path).write_text('\n'.join(lines) + '\n')


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'quickstart', type=Path, metavar='QUICKSTART', help="folder of a finished 'tools/quickstart.sh --task all'"
    )
    add_arguments(parser, '--work-dir', type=Path, default='work_dirs/scenes_controls')
    table_help = 'write a table of all results, in Markdown (default: %(default)s)'
    add_arguments(parser, '--table', default='scenes_controls.md', help=table_help)
    parser.add_argument('--finished', action='store_true', help='train nothing, write the table of what is there')
    args = parser.parse_args()
    with user_errors():
        ours = {}
        for config in configs():
            name = Path(config).stem
            metrics = args.quickstart / ('pretraining' if config == configs()[0] else name) / 'metrics.json'
            if not metrics.exists():
                raise UserError(f'{metrics} does not exist; run bash tools/quickstart.sh --task all first')
            ours[name] = json.loads(metrics.read_text())
        folder = args.work_dir.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.nullcontext() if args.finished else comparing(args, measure, says) as trainer:
            found = {kind: control(kind, folder, trainer) for kind in ('frozen', 'resnet18')}
            found['ours'] = ours
            images = ROOT / 'data' / 'scenes' / 'imagenet'
            found['colour'] = accuracy_by_colour(histograms_of(images / 'train'), histograms_of(images / 'val'))
            write_table(found, args.table)
            print(Path(args.table).read_text())
        close = too_close(found)
        if close:
            raise UserError(f'a random backbone comes within {MARGIN} of the trained one in {", ".join(close)}')
        if found['colour'] > MOST_BY_COLOUR:
            raise UserError(f'colours alone tell {found["colour"]:.0%} of the classes, more than {MOST_BY_COLOUR:.0%}')


if __name__ == '__main__':
    main()
