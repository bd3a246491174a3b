"""The rows for small grey images: models, data and recipe of train_all.py."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict

from projects.imagenet_table.rows import ROOT, Row
from scopevit.utils.errors import UserError

RECIPE = ROOT / 'configs' / 'classification' / 'scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
CLASSES, CHANNELS = 10, 1
LIBRARIES = {  # their words for classes and channels
    'TimmClassifier': dict(num_classes=CLASSES, in_chans=CHANNELS),
    'HuggingFaceClassifier': dict(num_labels=CLASSES, num_channels=CHANNELS),
}


def swin_windows(size: int) -> list[int]:
    """For each stage the largest window up to 7 that divides its map, so that no map is padded."""
    return [max(w for w in range(1, 8) if size // stride % w == 0) for stride in (4, 8, 16, 32)]


def crossvit_sides(size: int) -> list[int]:
    """Sides of the images that its two branches see, in whole patches of 12 and 16 pixels."""
    return [12 * round(size * 240 / 224 / 12), size]


def _crossvit(size: int) -> dict:
    side, other = crossvit_sides(size)
    # timm cuts digits off the product of side and scale; half a pixel more, and it is the other side.
    return dict(img_size=side, img_scale=(1.0, (other + 0.5) / side))


OF_SIZE = {  # options of the rows that must be built for the size of their images
    'Swin-2G': lambda size: dict(img_size=size, stage_cfgs=[dict(window_size=w) for w in swin_windows(size)]),
    'DeiT-S': lambda size: dict(img_size=size),
    'EViT-S': lambda size: dict(img_size=size),
    'PVT-Small': lambda size: dict(image_size=size),
    'CoaT Mini': lambda size: dict(img_size=size),
    'CrossViT-S': _crossvit,
}


def shrink(model: ConfigDict, row: Row, size: int) -> None:
    """Make a row's model one for grey images of ten classes."""
    model.train_cfg = None  # no mixup and CutMix: they need long schedules
    if model.type in LIBRARIES:
        options = model
        options.update(LIBRARIES[model.type])
    else:
        model.head.update(num_classes=CLASSES, topk=(1,))
        options = model.backbone
        options.in_channels = CHANNELS
    if row.name in OF_SIZE:
        options.update(OF_SIZE[row.name](size))


def small_config(row: Row, args: argparse.Namespace) -> Config:
    """The config of a row's trainings, but for the learning rate."""
    cfg, own = Config.fromfile(RECIPE), row.load()
    cfg.data_preprocessor = dict(type='ClsDataPreprocessor', **cfg.model.data_preprocessor)
    shrink(own.model, row, args.size)
    cfg.model = own.model
    cfg.custom_hooks = own.custom_hooks
    if own.get('custom_imports'):
        cfg.custom_imports = own.custom_imports
    cfg.train_dataloader.dataset.indices = args.images
    cfg.val_dataloader.dataset.update(split='train', test_mode=False, indices=-count_held_out(args.data))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = os.path.abspath(args.data)
        loader.update(num_workers=args.workers, persistent_workers=args.workers > 0)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = args.size
            elif step.type == 'RandomCrop':
                step.update(crop_size=args.size, padding=args.size // 16)
    cfg.train_dataloader.batch_size = args.batch
    cfg.optim_wrapper.paramwise_cfg = own.optim_wrapper.paramwise_cfg
    warm_up, cosine = cfg.param_scheduler
    ninth = args.epochs / 9  # converted to iterations, of which there must be one
    warm_up.end = cosine.begin = ninth if ninth * args.images >= args.batch else 1
    cosine.end = cfg.train_cfg.max_epochs = args.epochs
    return cfg


def count_images(data: str, split: str) -> int:
    """Images of ``train`` or ``t10k``, by the header of the file."""
    path = Path(data) / f'{split}-images-idx3-ubyte'
    if not path.is_file():
        raise UserError(f'{data} holds no unpacked Fashion-MNIST; run python tools/data/fashion_mnist.py unpack')
    with path.open('rb') as file:
        return int.from_bytes(file.read(8)[4:], 'big')


def count_held_out(data: str) -> int:
    """The last sixth of the training images is held out, which is as many as there are test images."""
    return count_images(data, 'train') // 6
