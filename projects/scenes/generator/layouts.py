"""Scenes as files, laid out as ImageNet, COCO and ADE20K are."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np

from scopevit.utils.errors import UserError

from .compose import Scene, Thing, enlarged, make_object, make_scene
from .shapes import JOINTS, OBJECTS, SKELETON

# Indices of ImageNet-1K: figures stand for ball players, boats for yawls, balls for soccer balls.
IMAGENET_INDEX = {
    'person': 981, 'car': 817, 'bus': 779, 'airplane': 404, 'boat': 914, 'traffic light': 920, 'ball': 805,
    'bottle': 907, 'vase': 883, 'clock': 409,
}  # fmt: skip
COCO_NAMES = {category: 'sports ball' if category == 'ball' else category for category in OBJECTS}
# COCO numbers its 80 categories up to 90; these numbers were given up.
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)
# Random generators of the data sets: each image has its own, so that it does not depend on the others.
STREAMS = {name: i for i, name in enumerate(('imagenet', 'coco', 'ade20k'))}
SPLITS = ('train', 'val')


def generator(seed: int, dataset: str, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, STREAMS[dataset], SPLITS.index(split), index])


@contextmanager
def new_folder(path: str, content: dict) -> Iterator[str]:
    """A folder that appears when it is complete; nothing is yielded to do if it is there already.

    Args:
        path: Folder to make.
        content: What it is made from, kept in ``scenes.json`` there.

    Raises:
        UserError: If the folder holds anything else.
    """
    path = os.path.abspath(path)
    record = os.path.join(path, 'scenes.json')
    if os.path.exists(path) and os.listdir(path):
        try:
            with open(record) as file:
                existing = {'enlarge': 1, **json.load(file)}  # those drawn before the option do not say
        except (OSError, ValueError, TypeError):
            existing = None
        if existing != content:
            found = 'other data' if existing is None else f'other scenes ({existing}, wanted {content})'
            raise UserError(f'{path} exists and holds {found}; choose another folder or move it away')
        yield ''
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = tempfile.mkdtemp(dir=os.path.dirname(path), prefix='.scenes-')
    except OSError as error:
        raise UserError(f'cannot write {path} ({error.strerror}); choose another folder') from None
    try:
        yield temporary
        with open(os.path.join(temporary, 'scenes.json'), 'w') as file:
            json.dump(content, file)
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: str, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write an image; OpenCV would say nothing of a full disk."""
    if not cv2.imwrite(path, image, options):
        raise UserError(f'cannot write {path}; is there room on the disk?')


def _run(make: Callable, jobs: Sequence) -> list:
    """Make the images, many of them in several processes; results in the order of the jobs."""
    if len(jobs) <= 64:  # less work than to start processes
        return [make(job) for job in jobs]
    # Spawned, not forked: the caller may have threads.
    with get_context('spawn').Pool(min(8, os.cpu_count() or 1)) as pool:
        return pool.map(make, jobs, chunksize=16)


def write_imagenet(root: str, seed: int, train: int, val: int, enlarge: int = 1) -> bool:
    """Write ``root/{train,val}/<class folder>/*.JPEG`` with all 1,000 class folders, and their lists in ``meta/``.

    The folders' names sort as ImageNet's do: the 410th is that of the 410th class. Only the
    classes of ``IMAGENET_INDEX`` have images.

    Args:
        train, val: Images of the two splits.
        enlarge: Factor by which images and labels are enlarged: synthetic scenes are small, photographs are not.

    Returns:
        Whether something was written: False if it is all there already.

    Raises:
        UserError: If ``root`` holds other data or cannot be written.
    """
    counts = dict(train=train, val=val)
    with new_folder(root, dict(dataset='imagenet', seed=seed, enlarge=enlarge, **counts)) as folder:
        if not folder:
            return False
        for split in SPLITS:
            for i in range(1000):
                os.makedirs(os.path.join(folder, split, f'n{i:08d}'))
            names = _run(partial(_write_object_image, folder, seed, split, enlarge), range(counts[split]))
            os.makedirs(os.path.join(folder, 'meta'), exist_ok=True)
            with open(os.path.join(folder, 'meta', f'{split}.txt'), 'w') as file:
                file.writelines(f'{name} {int(name[1:9])}\n' for name in names)
    return True


def _write_object_image(folder: str, seed: int, split: str, enlarge: int, index: int) -> str:
    category = list(OBJECTS)[index % len(OBJECTS)]
    image = enlarged(make_object(generator(seed, 'imagenet', split, index), category).image, enlarge)
    wnid = f'n{IMAGENET_INDEX[category]:08d}'
    name = f'{wnid}/{wnid}_{index}.JPEG'
    _write(os.path.join(folder, split, name), image, QUALITY)
    return name


def write_coco(root: str, seed: int, train: int, val: int, enlarge: int = 1) -> bool:
    """Write COCO's 2017 layout: images, instances, person keypoints, and persons as a detector finds them.

    The first image of each split has a crowd; every fortieth is grey, as some of COCO's are.
    Arguments, result and errors are those of :func:`write_imagenet`.
    """
    from mmdet.datasets import CocoDataset

    numbers = [i for i in range(1, 91) if i not in COCO_GAPS]
    categories = [dict(id=i, name=name) for i, name in zip(numbers, CocoDataset.METAINFO['classes'])]
    ids = {name: i for i, name in zip(numbers, CocoDataset.METAINFO['classes'])}
    ids = {category: ids[name] for category, name in COCO_NAMES.items()}
    person = dict(categories[0], keypoints=list(JOINTS), skeleton=[list(pair) for pair in SKELETON])
    counts = dict(train=train, val=val)
    with new_folder(root, dict(dataset='coco', seed=seed, enlarge=enlarge, **counts)) as folder:
        if not folder:
            return False
        os.makedirs(os.path.join(folder, 'annotations'))
        for split in SPLITS:
            os.makedirs(os.path.join(folder, f'{split}2017'))
            written = _run(partial(_write_coco_image, folder, seed, split, enlarge, ids), range(counts[split]))
            images = [image for image, _ in written]
            things = [annotation for _, annotations in written for annotation in annotations]
            for number, annotation in enumerate(things, 1):
                annotation['id'] = number
            instances = [{k: v for k, v in a.items() if 'keypoints' not in k} for a in things]
            figures = [a for a in things if a['category_id'] == person['id']]
            for a in figures:  # a crowd has none
                a.setdefault('keypoints', [0] * 51)
                a.setdefault('num_keypoints', 0)
            for kind, found, named in (('instances', instances, categories), ('person_keypoints', figures, [person])):
                _write_json(
                    os.path.join(folder, 'annotations', f'{kind}_{split}2017.json'),
                    dict(
                        info=dict(description='synthetic scenes', version='1.0'),
                        licenses=[],
                        images=images,
                        annotations=found,
                        categories=named,
                    ),
                )
        detections = _detect_persons(np.random.default_rng([seed, len(STREAMS)]), figures)
        os.makedirs(os.path.join(folder, 'person_detection_results'))
        _write_json(
            os.path.join(folder, 'person_detection_results', 'COCO_val2017_detections_AP_H_56_person.json'), detections
        )
    return True


def _write_json(path: str, content: object) -> None:
    with open(path, 'w') as file:
        json.dump(content, file)


def _write_coco_image(folder: str, seed: int, split: str, enlarge: int, ids: dict, index: int) -> tuple:
    scene = make_scene(generator(seed, 'coco', split, index), crowd=True if index == 0 else None).enlarged(enlarge)
    number = index + 1 + 500_000 * SPLITS.index(split)
    name = f'{number:012d}.jpg'
    image = scene.image
    if index % 40 == 39:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    _write(os.path.join(folder, f'{split}2017', name), image, QUALITY)
    height, width = image.shape[:2]
    annotations = [annotate(thing, image_id=number, category_id=ids[thing.category]) for thing in scene.things]
    return dict(id=number, file_name=name, height=height, width=width), annotations


def annotate(thing: Thing, **ids: int) -> dict:
    """COCO's annotation of a thing: box, polygons or (for a crowd) RLE, keypoints."""
    from pycocotools import mask as coco_mask

    height, width = thing.mask.shape
    rows, columns = np.nonzero(thing.mask)
    left, top = int(columns.min()), int(rows.min())
    segmentation = run_lengths(thing.mask) if thing.crowd else polygons(thing.mask)
    encoded = coco_mask.frPyObjects(segmentation, height, width)
    found = dict(
        **ids,
        bbox=[left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        area=int(coco_mask.area(encoded if thing.crowd else coco_mask.merge(encoded))),
        iscrowd=int(thing.crowd),
        segmentation=segmentation,
    )
    if thing.keypoints is not None:
        found['keypoints'] = [round(float(value), 2) for value in thing.keypoints.flatten()]
        found['num_keypoints'] = int(np.count_nonzero(thing.keypoints[:, 2]))
    return found


def polygons(mask: np.ndarray, enlarge: int = 4) -> list[list[float]]:
    """Outlines of a mask (H, W) in COCO's coordinates, whose pixel (0, 0) covers [0, 1] x [0, 1].

    Holes are filled: COCO's polygons have none.

    OpenCV's contours run through the centres of border pixels: on the mask itself they would lose
    half a pixel all around, on an enlarged one an eighth.
    """
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    top, left = int(rows[0]), int(columns[0])
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    large = crop.repeat(enlarge, 0).repeat(enlarge, 1)
    offset = (left * enlarge, top * enlarge)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    outlines = []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True):
        contour = cv2.approxPolyDP(contour, 0.3 * enlarge, True)
        if len(contour) >= 3 and (not outlines or cv2.contourArea(contour) >= 2 * enlarge**2):
            outlines.append([round(float(value), 2) for value in ((contour + 0.5) / enlarge).flatten()])
    return outlines


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a mask (H, W): run lengths column by column, beginning with zeros."""
    pixels = mask.flatten(order='F').astype(np.int8)
    changes = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if pixels[0] else counts)


def _detect_persons(rng: np.random.Generator, figures: list[dict]) -> list[dict]:
    """Boxes as a detector might give them: a little off, some missed, some of nothing."""
    found = []
    for a in figures:
        if a['iscrowd'] or rng.random() < 0.05:
            continue
        x, y, w, h = np.array(a['bbox'], float) + rng.normal(0, 0.04, 4) * np.tile(a['bbox'][2:], 2)
        found.append((a['image_id'], [x, y, w, h], rng.uniform(0.6, 1.0)))
        if rng.random() < 0.1:
            found.append((a['image_id'], [x + w / 2, y, w, h / 2], rng.uniform(0.05, 0.4)))
    return [
        dict(image_id=i, category_id=1, bbox=[round(float(v), 2) for v in box], score=round(float(score), 4))
        for i, box, score in found
    ]


def write_ade20k(root: str, seed: int, train: int, val: int, enlarge: int = 1) -> bool:
    """Write ADE20K's scene parsing layout: ``root/{images,annotations}/{training,validation}``.

    Annotations are PNGs of class numbers from 1; 0 is not labelled. Arguments, result and errors
    are those of :func:`write_imagenet`.
    """
    from mmseg.datasets import ADE20KDataset

    numbers = {name: i for i, name in enumerate(ADE20KDataset.METAINFO['classes'], 1)}
    counts = dict(train=train, val=val)
    with new_folder(root, dict(dataset='ade20k', seed=seed, enlarge=enlarge, **counts)) as folder:
        if not folder:
            return False
        for split in SPLITS:
            for kind in ('images', 'annotations'):
                os.makedirs(os.path.join(folder, kind, _ADE_SPLITS[split]))
            _run(partial(_write_ade20k_image, folder, seed, split, enlarge, numbers), range(counts[split]))
    return True


_ADE_SPLITS = dict(train='training', val='validation')


def _write_ade20k_image(folder: str, seed: int, split: str, enlarge: int, numbers: dict, index: int) -> None:
    scene = make_scene(generator(seed, 'ade20k', split, index)).enlarged(enlarge)
    name = f'ADE_{split}_{index + 1:08d}'
    _write(os.path.join(folder, 'images', _ADE_SPLITS[split], f'{name}.jpg'), scene.image, QUALITY)
    label = label_map(scene, numbers)
    _write(os.path.join(folder, 'annotations', _ADE_SPLITS[split], f'{name}.png'), label)


def label_map(scene: Scene, numbers: dict) -> np.ndarray:
    """Class number of each pixel (H, W); 0 on objects of no category."""
    label = np.array([numbers[region] for region in scene.regions], np.uint8)[scene.region_map]
    for thing in scene.things:
        label[thing.mask] = numbers[thing.category]
    label[scene.unlabelled] = 0
    return label
