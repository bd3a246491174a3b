"""Whether the files that a config names exist, where to get those that do not, and how many images there are."""

import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio.backends import prefix_to_backends

from ..utils.config import walk
from .findings import Finding

# Images of the official data, by a part of the folder's or annotation file's name.
OFFICIAL_COUNTS = {
    'ImageNet': {'train': 1281167, 'val': 50000},
    'CocoDataset': {'train2017': 118287, 'val2017': 5000},
    'ADE20KDataset': {'training': 20210, 'validation': 2000},
}
# What to download for a folder or file whose name holds these words, and from where.
COCO_SITE = 'https://cocodataset.org/#download'
SOURCES = {
    'CocoDataset': {
        'instances_': f'annotations_trainval2017.zip from {COCO_SITE}',
        'person_keypoints_': f'annotations_trainval2017.zip from {COCO_SITE}',
        'train2017': f'train2017.zip (118,287 images, 18 GB) from {COCO_SITE}',
        'val2017_detections': 'person_detection_results, linked from the COCO section of '
        "https://mmpose.readthedocs.io (2D body keypoint datasets); a detector's results in COCO's form also do",
        'val2017': f'val2017.zip (5,000 images, 1 GB) from {COCO_SITE}',
    },
    'ADE20KDataset': {
        '': 'ADEChallengeData2016.zip (1 GB) from http://sceneparsing.csail.mit.edu; unpack it where the folder '
        'ADEChallengeData2016 belongs'
    },
    'ImageNet': {
        'train': 'ILSVRC2012_img_train.tar (138 GB) from https://image-net.org/download.php; it holds one more tar '
        'for each of the 1,000 classes, to be unpacked into a folder of its name (n01440764/, ...)',
        'val': 'ILSVRC2012_img_val.tar (6 GB) from https://image-net.org/download.php; sort its images into the same '
        '1,000 class folders as in train (their classes are in ILSVRC2012_devkit_t12.tar.gz)',
    },
}


def exists(path: str) -> bool:
    """Whether there is such a file or folder; of what lies elsewhere (``s3://...``) that is taken for granted."""
    return is_elsewhere(path) or os.path.exists(path)


def is_elsewhere(path: str) -> bool:
    """Whether MMEngine reads a path by another way than from the file system."""
    place = path.partition('://')[0] if '://' in path else ''
    return place.rpartition(':')[2] in prefix_to_backends and place != ''


def is_odd(path: str) -> bool:
    """Whether there is something else than a file at a path: a folder, a pipe, or an address that nothing reads."""
    return not is_elsewhere(path) and ('://' in path or (os.path.exists(path) and not os.path.isfile(path)))


def source_of(kind: str, path: str) -> str | None:
    """Where to download the official data of a kind of data set that belong at a path."""
    return next((source for word, source in SOURCES.get(kind, {}).items() if word in _name(path)), None)


def paths_of(dataset: BaseDataset) -> list[str]:
    """The files and folders that a data set is read from."""
    paths = [getattr(dataset, name, None) for name in ('ann_file', 'bbox_file', 'proposal_file')]
    prefix = getattr(dataset, 'data_prefix', None)
    paths += prefix.values() if isinstance(prefix, dict) else []
    return [path for path in paths if isinstance(path, str) and path]


def check_paths(where: str, key: str, dataset: BaseDataset) -> Iterator[Finding]:
    """What a data set is read from exists; ``key`` leads to its settings in the config."""
    root = getattr(dataset, 'data_root', None) or 'not set'
    for path in dict.fromkeys(paths_of(dataset)):
        if not exists(path):
            source = source_of(type(dataset).__name__, path)
            remedy = f'download {source}' if source else 'put it there'
            text = f'{path} does not exist; {remedy}, or set --cfg-options {key}.data_root=FOLDER (now {root})'
            yield Finding('error', where, text)


def check_evaluator_files(cfg: Config, known: set[str]) -> Iterator[Finding]:
    """Files that the metrics read exist: they are stated apart from the data sets, whose files are ``known``."""
    for name in ('val_evaluator', 'test_evaluator'):
        files = [metric.get('ann_file') for metric in walk(cfg.get(name))]
        for path in sorted({file for file in files if isinstance(file, str)} - known):
            if not exists(path):
                text = (
                    f'ann_file {path} does not exist; the metric reads its own: set --cfg-options {name}.ann_file=FILE'
                )
                yield Finding('error', name, text)


def check_image_count(where: str, kind: str, path: str, count: int) -> Iterator[Finding]:
    """There are images; and whether they are all of a well-known data set."""
    name, official = next(
        ((word, n) for word, n in OFFICIAL_COUNTS.get(kind, {}).items() if word in _name(path)), (None, None)
    )
    if not count:
        yield Finding('error', where, f'there are no images in {path}')
    elif official is None or count == official:
        yield Finding('info', where, f'{count:,} images' + (f', all of {kind} {name}' if official else ''))
    else:
        compared = 'a subset of' if count < official else 'more than'
        yield Finding('note', where, f'{count:,} images, {compared} the {official:,} of {kind} {name}')


def _name(path: str) -> str:
    return os.path.basename(path.rstrip('/'))
