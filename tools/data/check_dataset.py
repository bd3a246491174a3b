"""Check the data of a config before a long training: paths, counts, classes, and a sample of files.

    python tools/data/check_dataset.py configs/detection/retinanet_scopevit-tiny_fpn_1x_coco.py

For the training, validation and test data it checks that all files exist, that the classes are
those of the model's heads, that boxes, masks, joints and label maps are sound, and that a sample
of images can be decoded and loaded as in training. COCO, ImageNet and ADE20K layouts are checked
in detail, any other data set of the toolboxes by building and loading it. Nothing is changed or
downloaded.

The exit status is 0 if the data are sound; otherwise it is 1, and all problems are listed with what
to do. With some of them a training cannot start, with others it would learn from faulty labels.
Notes are things to know: a subset of the images, or a few boxes that the toolboxes pass over.
COCO's own files have some of those, so one in 10,000 is a note, more are a problem.
"""

import argparse
import inspect
import json
import os
import random
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from torch import nn

from scopevit.checks.data import class_heads, classes_of, joint_channels, joints_of
from scopevit.utils.config import forget_pretrained, load_config
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.image import read_image

SPLITS = ('train', 'val', 'test')
TOLERATED = 1e-4
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or a config of an installed toolbox such as mmdet::...')
    parser.add_argument('--sample', type=int, default=50, help='images of each split to open (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='which images these are (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    args = parser.parse_args()
    if args.sample < 1:
        parser.error('--sample must be at least 1')
    return args


class Report:
    """Says what is going on, and collects the problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def note(self, text: str) -> None:
        self.notes += 1
        self.say(f'  note: {text}')

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def some(self, where: str, faulty: list[str], total: int, what: str, remedy: str, passed_over: bool = True) -> None:
        """Report faulty items, if any.

        Those that the toolboxes pass over are a note, if they are as few as in COCO's own files.
        """
        if not faulty:
            return
        text = f'{where}: {len(faulty)} of {total} {what} ({_first(faulty)})'
        if passed_over and len(faulty) <= TOLERATED * total:
            self.note(f'{text}; they are passed over in training')
        else:
            self.problem(f'{text}: {remedy}')


def _first(items: list, most: int = 3) -> str:
    return ', '.join(map(str, items[:most])) + (', ...' if len(items) > most else '')


class Checker:
    """Checks all splits of a config."""

    def __init__(self, cfg: Config, sample: int, seed: int) -> None:
        self.cfg = cfg
        self.scope = cfg.get('default_scope') or 'mmengine'
        self.sample = sample
        self.random = random.Random(seed)
        self.report = Report()
        self.heads: dict[str, int] = {}
        self.head: nn.Module | None = None  # of a classifier or a pose model
        self.class_folders: dict[str, list[str]] = {}
        self.expected = set()  # paths that data are read from
        self.compared = set()  # splits whose classes were compared with the heads

    def run(self) -> Report:
        self.check_model()
        done: list[tuple[str, dict]] = []
        for split in SPLITS:
            dataset = (self.cfg.get(f'{split}_dataloader') or {}).get('dataset')
            if dataset is None:
                continue
            same = next((name for name, settings in done if settings == dataset), None)
            done.append((split, dataset))
            if same:
                self.report.say(f'{split}: the same data as {same}')
                continue
            self.check_split(split, dataset)
        if not done:
            raise UserError('this config has no data: no train_dataloader, val_dataloader or test_dataloader')
        self.check_evaluators()
        self.list_expected()
        return self.report

    def check_model(self) -> None:
        """Build the model, to learn how many classes its heads tell apart."""
        if not self.cfg.get('model'):
            self.report.problem('the config has no model')
            return
        settings = Config(self.cfg.to_dict()).model
        if self.cfg.get('data_preprocessor') is not None:  # as MMEngine's Runner does
            settings.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        forget_pretrained(settings)
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                model = MODELS.build(settings)
        except Exception as error:  # building runs code of the toolboxes
            self.report.problem(f'the model cannot be built: {_described(error)}; mend the config')
            return
        self.heads = class_heads(model)
        self.head = getattr(model, 'head', None)
        preprocessor = settings.get('data_preprocessor') or {}
        if preprocessor.get('num_classes') and self.heads:
            self.heads['data_preprocessor'] = preprocessor['num_classes']

    def check_split(self, split: str, settings: dict) -> None:
        self.report.say(f'{split}:')
        before = len(self.report.problems)
        for name, key, part in _parts(split, f'{split}_dataloader.dataset', settings):
            self.check_part(name, key, part)
        if len(self.report.problems) > before:
            found = len(self.report.problems) - before
            self.report.say(f'  {found} to mend, see the end; not loaded as in training before that')
            return
        self.check_loading(split, settings)

    def check_part(self, where: str, key: str, settings: dict) -> None:
        """Check one data set, before it is built in full; ``key`` leads to its settings in the config."""
        try:
            dataset = self.build(settings, lazy_init=True)
        except Exception as error:
            self.report.problem(f'{where}: the data set {settings.get("type")} cannot be built: {_described(error)}')
            return
        if not self.check_paths(where, key, dataset, settings):
            return
        if _is_a(dataset, 'BaseCocoStyleDataset', 'load_data_list', 'parse_data_info'):
            self.check_coco(where, dataset, joints=True)
        elif _is_a(dataset, 'CocoDataset', 'load_data_list', 'parse_data_info'):
            self.check_coco(where, dataset)
            self.check_class_count(where, classes_of(dataset))
        elif _is_a(dataset, 'BaseSegDataset', 'load_data_list'):
            self.check_segmentation(where, dataset)
            self.check_class_count(where, dataset.metainfo.get('classes'))
        elif _is_a(dataset, 'CustomDataset', 'load_data_list'):
            if dataset.ann_file:
                self.check_list(where, dataset)
            else:
                self.check_class_folders(where, dataset)

    def build(self, settings: dict, **options: object) -> BaseDataset:
        """A data set of the toolbox, which is kept from downloading itself."""
        settings = dict(settings, **options)
        with DATASETS.switch_scope_and_registry(self.scope) as registry:
            kind = settings['type'] if isinstance(settings['type'], type) else registry.get(settings['type'])
            if kind is not None and 'download' in inspect.signature(kind).parameters:
                settings['download'] = False
            with DefaultScope.overwrite_default_scope(self.scope):
                return registry.build(settings)

    def check_paths(self, where: str, key: str, dataset: BaseDataset, settings: dict) -> bool:
        """Whether the files and folders that a data set is read from exist."""
        paths = {key: getattr(dataset, key, None) for key in ('ann_file', 'bbox_file', 'proposal_file')}
        prefix = getattr(dataset, 'data_prefix', None) or {}
        paths.update(prefix if isinstance(prefix, dict) else {})
        paths = [path for path in paths.values() if isinstance(path, str) and path]
        self.expected.update(paths)
        missing = [path for path in paths if not _exists(path)]
        for path in missing:
            source = _source(type(dataset).__name__, path)
            self.report.problem(
                f'{where}: {path} does not exist; '
                + (f'download {source}' if source else 'put it there')
                + f', or set --cfg-options {key}.data_root=FOLDER (now {settings.get("data_root") or "not set"})'
            )
        return not missing

    def list_expected(self) -> None:
        """Show where everything belongs, if something is not there."""
        if all(map(_exists, self.expected)):
            return
        self.report.say(f'this config expects, seen from {os.getcwd()}:')
        for path in sorted(self.expected):
            self.report.say(f'  {path}' + ('' if _exists(path) else '  (missing)'))

    def check_class_count(self, where: str, classes: list[str] | None) -> None:
        if not classes:
            return
        self.compared.add(where.split('[')[0])
        for head, count in self.heads.items():
            if count != len(classes):
                key = f'model.{head}' if head != 'data_preprocessor' else head
                self.report.problem(
                    f'{where}: the data have {len(classes)} classes ({_first(list(classes))}), but {key}.num_classes '
                    f'is {count}: set it to {len(classes)}, or metainfo.classes of the data set to the classes wanted'
                )

    def check_count(self, where: str, kind: str, path: str, count: int) -> None:
        """Say how many images there are, and whether that is all of a well-known data set."""
        name, official = next(
            ((word, n) for word, n in OFFICIAL_COUNTS.get(kind, {}).items() if word in _name(path)), (None, None)
        )
        if official is None or count == official:
            self.report.say(f'  {count:,} images' + (f', all of {kind} {name}' if official else ''))
        else:
            compared = 'a subset of' if count < official else 'more than'
            self.report.note(f'{where}: {count:,} images, {compared} the {official:,} of {kind} {name}')
        if not count:
            self.report.problem(f'{where}: there are no images in {path}')

    # COCO: boxes, masks, joints

    def check_coco(self, where: str, dataset: BaseDataset, joints: bool = False) -> None:
        path = dataset.ann_file
        self.report.say(f'  reading {path} ({os.path.getsize(path) / 1e6:,.0f} MB)')
        try:
            with open(path) as file:
                content = json.load(file)
            images = {image['id']: image for image in content['images']}
            annotations, categories = content['annotations'], content['categories']
            names = {category['id']: category['name'] for category in categories}
            sizes = {i: (image['width'], image['height']) for i, image in images.items()}
            files = {i: os.path.join(dataset.data_prefix['img'], image['file_name']) for i, image in images.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.report.problem(f'{where}: {path} is not a COCO annotation file ({_described(error)}): use another')
            return
        self.check_count(where, 'CocoDataset', path, len(images))
        if len(images) < len(content['images']):
            self.report.problem(f'{where}: image ids in {path} are not unique: number them anew')
        if len({a.get('id') for a in annotations}) < len(annotations):
            self.report.problem(f'{where}: annotation ids in {path} are missing or not unique: number them anew')
        missing = {i: file for i, file in files.items() if not _exists(file)}
        if missing:
            self.report.problem(
                f'{where}: {len(missing)} of {len(files)} images do not exist ({_first(list(missing.values()))}): '
                'unpack them again, or remove them from the annotation file'
            )
        if not joints:
            self.check_categories(where, dataset, annotations, categories)
        self.check_annotations(where, path, annotations, sizes, names)
        if not joints:
            self.check_objects(where, annotations)
        if joints:
            self.check_joints(where, dataset, annotations, sizes)
            if getattr(dataset, 'bbox_file', None):
                self.check_detections(where, dataset.bbox_file, sizes)
        with_masks = not joints and _loads_masks(dataset)
        if with_masks:
            self.check_masks(where, annotations)
        by_image: dict[object, list[dict]] = {}
        for annotation in annotations:
            by_image.setdefault(annotation.get('image_id'), []).append(annotation)
        for i in self.choose(i for i in images if i not in missing):
            image = self.open(where, files[i])
            if image is None:
                continue
            width, height = sizes[i]
            if image.shape[:2] != (height, width):
                self.report.problem(
                    f'{where}: {files[i]} has {image.shape[1]}x{image.shape[0]} pixels, but {path} says '
                    f'{width}x{height}: correct the annotation file (a photograph turned by its EXIF is read upright)'
                )
            elif with_masks:
                self.check_mask_pixels(where, by_image.get(i, []), width, height)

    def check_categories(
        self, where: str, dataset: BaseDataset, annotations: list[dict], categories: list[dict]
    ) -> None:
        classes = dataset.metainfo.get('classes') or []
        if isinstance(classes, str):
            self.report.problem(f'{where}: classes is a text: write classes=({classes!r},), with a comma')
            return
        classes = list(classes)
        in_file = [category['name'] for category in categories]
        # mmdet numbers the labels in the order of the file, whatever the order of the classes.
        labels = [name for name in in_file if name in classes]
        lacking = [name for name in classes if name not in in_file]
        remedy = f'set metainfo=dict(classes={tuple(in_file[:3])!r}...) in the data set, and num_classes to fit'
        if not labels:
            self.report.problem(
                f'{where}: none of the {len(classes)} classes of the config ({_first(classes)}) is a category of '
                f'{dataset.ann_file} ({_first(in_file)}): {remedy}'
            )
            return
        if labels != classes[: len(labels)]:
            i = next(i for i, (a, b) in enumerate(zip(labels, classes)) if a != b)
            self.report.problem(
                f'{where}: the categories of {dataset.ann_file} are not in the order of the classes of the config: '
                f'label {i} would be called {classes[i]} but be {labels[i]}: put the classes in the order of the file'
            )
        elif lacking:
            self.report.note(f'{where}: {len(lacking)} classes are not in the annotation file ({_first(lacking)})')
        used = Counter(a.get('category_id') for a in annotations)
        others = {c['name']: used[c['id']] for c in categories if c['name'] not in classes and used[c['id']]}
        if others:
            self.report.note(
                f'{where}: {sum(others.values())} objects are of categories that the config does not have '
                f'({_first(list(others))}); they are passed over in training'
            )

    def check_annotations(
        self, where: str, path: str, annotations: list[dict], sizes: dict, names: dict[object, str]
    ) -> None:
        """Ids, categories and boxes."""
        strange, unknown, broken, outside = [], [], [], []
        for annotation in annotations:
            name = f'annotation {annotation.get("id")}'
            if annotation.get('image_id') not in sizes:
                strange.append(f'{name}: image {annotation.get("image_id")}')
                continue
            if annotation.get('category_id') not in names:
                unknown.append(f'{name}: category {annotation.get("category_id")}')
            box = annotation.get('bbox')
            if not _is_numbers(box, 4) or min(box[2:]) <= 0:
                broken.append(f'{name}: bbox {box}')
                continue
            (x, y, w, h), (width, height) = box, sizes[annotation['image_id']]
            if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
                outside.append(f'{name}: bbox {box} in {width}x{height}')
        total = len(annotations)
        if not total:
            self.report.problem(f'{where}: {path} has no annotations')
        self.report.some(where, strange, total, 'annotations are of images that the file does not list', 'remove them')
        self.report.some(
            where, unknown, total, 'category ids are not among the categories of the file', 'correct the ids'
        )
        self.report.some(
            where, broken, total, 'boxes have no area or are not [x, y, width, height]', 'correct or remove them'
        )
        self.report.some(
            where, outside, total, 'boxes reach outside the image', 'cut them off at the edges (are they x, y, x, y?)'
        )

    def check_objects(self, where: str, annotations: list[dict]) -> None:
        """mmdet needs the area of each object, and drops those without any, or thinner than a pixel."""
        lacking, dropped, sides = [], [], []
        for annotation in annotations:
            name, area, box = f'annotation {annotation.get("id")}', annotation.get('area'), annotation.get('bbox')
            if not _is_numbers([area], 1):
                lacking.append(f'{name}: area {area}')
            elif _is_numbers(box, 4) and min(box[2:]) > 0 and (area <= 0 or min(box[2:]) < 1):
                dropped.append(f'{name}: area {area}, bbox {box}')
                sides += box[2:]
        total = len(annotations)
        self.report.some(
            where, lacking, total, 'objects have no area', 'set area to width x height of the box', passed_over=False
        )
        hint = ' (boxes are in pixels, not in fractions of the image)' if sides and max(sides) <= 1 else ''
        self.report.some(
            where, dropped, total, 'objects have an area of 0 or are thinner than a pixel', f'correct them{hint}'
        )

    def check_masks(self, where: str, annotations: list[dict]) -> None:
        def is_missing(mask: object) -> bool:
            return not (mask.get('counts') and mask.get('size') if isinstance(mask, dict) else mask)

        def is_line(mask: object) -> bool:  # mmdet takes no polygon of fewer than three points
            return isinstance(mask, list) and not any(
                isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in mask
            )

        masks = {f'annotation {a.get("id")}': a.get('segmentation') for a in annotations}
        missing = [name for name, mask in masks.items() if is_missing(mask)]
        lines = [name for name, mask in masks.items() if is_line(mask) and not is_missing(mask)]
        remedy = 'the model learns masks: draw or remove those objects'
        self.report.some(where, missing, len(masks), 'masks are missing', remedy, passed_over=False)
        self.report.some(where, lines, len(masks), 'masks have fewer than three points', remedy)

    def check_mask_pixels(self, where: str, annotations: list[dict], width: int, height: int) -> None:
        """Draw an image's masks: they must have pixels, inside their image."""
        from pycocotools import mask as masks

        for annotation in annotations:
            mask = annotation.get('segmentation')
            try:
                encoded = masks.frPyObjects(mask, height, width) if not isinstance(_counts(mask), str) else mask
                encoded = masks.merge(encoded) if isinstance(encoded, list) else encoded
                sound = masks.area(encoded) > 0 and list(encoded['size']) == [height, width]
            except Exception:  # pycocotools says in many ways that it cannot read a mask
                sound = False
            if mask and not sound:
                self.report.problem(
                    f'{where}: the mask of annotation {annotation.get("id")} has no pixels in its image of '
                    f'{width}x{height}, or is of another size: draw it again or remove it'
                )

    def check_joints(self, where: str, dataset: BaseDataset, annotations: list[dict], sizes: dict) -> None:
        number, learnt = dataset.metainfo['num_keypoints'], joints_of(dataset)
        channels, wanted = joint_channels(self.head, learnt) or (None, None)
        if dataset.data_mode == 'topdown' and channels != wanted:
            self.report.problem(
                f'{where}: the data have {learnt} joints, but model.head.out_channels is {channels}: set it to {wanted}'
            )
        people = [a for a in annotations if 'keypoints' in a]
        if not people:
            self.report.problem(
                f'{where}: {dataset.ann_file} has no keypoints: take the file with joints (person_keypoints_...json)'
            )
            return
        wrong, outside, miscounted, usable = [], [], [], 0
        for person in people:
            name, joints = f'annotation {person.get("id")}', person['keypoints']
            if not _is_numbers(joints, 3 * number):
                wrong.append(f'{name}: {len(joints) if isinstance(joints, list) else joints} numbers')
                continue
            joints = np.reshape(joints, (number, 3))
            marked = joints[joints[:, 2] > 0]
            usable += len(marked) > 0 and not person.get('iscrowd')
            if person.get('num_keypoints', len(marked)) != len(marked):
                miscounted.append(name)
            size = sizes.get(person.get('image_id'))
            if size and len(marked) and ((marked[:, :2] < -1) | (marked[:, :2] > np.add(size, 1))).any():
                outside.append(name)
        total = len(people)
        self.report.some(
            where,
            wrong,
            total,
            f'lists of keypoints are not {number} times x, y, visibility',
            'correct or remove them',
            passed_over=False,
        )
        self.report.some(where, miscounted, total, 'num_keypoints are not the number of visible joints', 'correct them')
        self.report.some(where, outside, total, 'people have joints outside the image', 'mark those as not visible (0)')
        if not usable:
            self.report.problem(f'{where}: no person in {dataset.ann_file} has a visible joint: there is none to learn')
        elif usable < total:
            self.report.note(
                f'{where}: {total - usable:,} of {total:,} people have no visible joint or are crowds; mmpose passes '
                'over them'
            )

    def check_detections(self, where: str, path: str, sizes: dict) -> None:
        try:
            with open(path) as file:
                found = json.load(file)
            unknown = [f'image {f["image_id"]}' for f in found if f['image_id'] not in sizes]
            people = [f for f in found if f['category_id'] == 1 and _is_numbers(f['bbox'], 4) and f['score'] >= 0]
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.report.problem(
                f'{where}: {path} is not a list of detections as COCO has them ({_described(error)}): use another, or '
                f'the annotated boxes with --cfg-options {where}_dataloader.dataset.bbox_file='
            )
            return
        if unknown:
            self.report.problem(
                f'{where}: {len(unknown)} of {len(found)} detections in {path} are of images that the annotation file '
                f'does not list ({_first(unknown)}): use the detections of this split, or the annotated boxes with '
                f'--cfg-options {where}_dataloader.dataset.bbox_file='
            )
        self.report.say(f'  {len(people):,} detections of people')

    # Semantic segmentation

    def check_segmentation(self, where: str, dataset: BaseDataset) -> None:
        items = dataset.load_data_list()
        self.check_count(where, type(dataset).__name__, dataset.data_prefix.get('img_path', ''), len(items))
        if not items:
            self.report.problem(
                f'{where}: no file of {dataset.data_prefix.get("img_path")} ends with {dataset.img_suffix}: set '
                'img_suffix of the data set'
            )
        for key, what in (('img_path', 'images'), ('seg_map_path', 'label maps')):
            there = [item for item in items if not item.get(key) or _exists(item[key])]
            if len(there) < len(items):
                missing = [item[key] for item in items if item.get(key) and not _exists(item[key])]
                self.report.problem(
                    f'{where}: {len(missing)} of {len(items)} {what} do not exist ({_first(missing)}): unpack them '
                    'again, or remove their counterparts'
                )
            items = there
        # Old labels are renumbered to those of the wanted classes.
        classes = type(dataset).METAINFO['classes'] if dataset.label_map else dataset.metainfo.get('classes') or ()
        highest = len(classes) - (0 if dataset.reduce_zero_label else 1)
        seen = set()
        for item in self.choose(items):
            image = self.open(where, item['img_path'])
            if item.get('seg_map_path'):
                seen |= self.check_label_map(where, item['seg_map_path'], image, highest, dataset.ignore_index)
        ignored = {dataset.ignore_index} | ({0, 255} if dataset.reduce_zero_label else set())
        if seen and seen <= ignored:
            self.report.problem(f'{where}: all pixels of the label maps that were opened are ignored: check the labels')

    def check_label_map(self, where: str, path: str, image: np.ndarray | None, highest: int, ignore_index: int) -> set:
        try:
            with Image.open(path) as picture:
                mode, labels = picture.mode, np.asarray(picture)
        except Exception as error:  # whatever a decoder says of damaged data
            self.report.problem(f'{where}: label map {path} cannot be decoded ({_described(error)}): unpack it again')
            return set()
        if labels.ndim != 2:
            self.report.problem(
                f'{where}: label map {path} is {mode}, but must have one channel whose values are class numbers: '
                'convert the colours to class numbers'
            )
            return set()
        if image is not None and labels.shape != image.shape[:2]:
            self.report.problem(
                f'{where}: label map {path} has {labels.shape[1]}x{labels.shape[0]} pixels, but its image '
                f'{image.shape[1]}x{image.shape[0]}: make them agree'
            )
        values = set(np.unique(labels).tolist())
        wrong = sorted(value for value in values if value > highest and value not in (ignore_index, 255))
        if wrong and highest >= 0:
            self.report.problem(
                f'{where}: label map {path} has the values {_first(wrong)}, but the classes of the config go from 0 '
                f'to {highest} (and {ignore_index} for ignored pixels): set metainfo.classes and num_classes, or '
                'correct the labels'
            )
        return values

    # Classification

    def check_class_folders(self, where: str, dataset: BaseDataset) -> None:
        root = dataset.img_prefix
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        is_imagenet = type(dataset).__name__ == 'ImageNet'
        if is_imagenet and len(folders) != 1000:
            source = _source('ImageNet', root)
            self.report.problem(
                f'{where}: {root} has {len(folders)} class folders, ImageNet has 1,000: '
                + (f'unpack {source}' if source else 'unpack it again')
            )
            return
        if dataset.with_label and not folders:
            self.report.problem(f'{where}: {root} has no class folders: put the images of each class into one')
            return
        if not dataset.with_label:
            return
        for other, known in self.class_folders.items():
            if folders != known:
                only = sorted(set(folders) ^ set(known))
                self.report.problem(
                    f'{where}: the class folders are not those of {other} ({_first(only)} only in one of them), so the '
                    'labels would not agree: make the folders the same'
                )
                break
        self.class_folders[where] = folders
        self.check_class_count(where, dataset.CLASSES or folders)
        extensions = tuple(dataset.extensions)
        empty, count = [], 0
        for folder in folders:
            inside = sum(
                file.lower().endswith(extensions)
                for _, _, files in os.walk(os.path.join(root, folder), followlinks=True)
                for file in files
            )
            count += inside
            if not inside:
                empty.append(folder)
        self.check_count(where, type(dataset).__name__, root, count)
        if empty:
            self.report.problem(f'{where}: {len(empty)} class folders of {root} are empty ({_first(empty)}): fill them')

    def check_list(self, where: str, dataset: BaseDataset) -> None:
        """A list of images and their labels; mmpretrain takes ImageNet's ``meta/train.txt`` by itself."""
        path = dataset.ann_file
        try:
            items = dataset.load_data_list()
        except ValueError as error:
            self.report.problem(f'{where}: a line of {path} is not "image label" ({_described(error)}): mend the list')
            return
        self.check_count(where, type(dataset).__name__, dataset.img_prefix, len(items))
        missing = [item['img_path'] for item in items if not _exists(item['img_path'])]
        if missing:
            self.report.problem(
                f'{where}: {len(missing)} of the {len(items)} images in {path} do not exist ({_first(missing)}): '
                'unpack them again, or remove them from the list'
            )
        self.check_class_count(where, dataset.CLASSES)
        labels = {item['gt_label'] for item in items if 'gt_label' in item}
        for label in sorted({min(labels), max(labels)}) if labels else ():
            try:
                self.check_label(where, path, label)
            except UserError as error:
                self.report.problem(f'{where}: {path}: {error}')

    # Any data set

    def check_loading(self, split: str, settings: dict) -> None:
        """Build the data set as training will, and load the first, the last and some more items."""
        self.report.say('  loading as in training')
        try:
            dataset = self.build(settings)
            count = len(dataset)
            if not count:
                self.report.problem(f'{split}: the data set is empty after filtering: check annotations and classes')
                return
        except Exception as error:  # the toolboxes check their data in many ways
            self.report.problem(f'{split}: the data set {settings.get("type")} cannot be built: {_described(error)}')
            return
        self.report.say(f'  {count:,} items')
        infos = hasattr(dataset, 'get_data_info')
        classes = classes_of(dataset)
        if split not in self.compared and isinstance(classes, (list, tuple)):
            self.check_class_count(split, classes)
        failures: dict[str, list[str]] = {}
        for i in sorted({0, count - 1, *self.choose(range(count))}):
            name = f'item {i}'
            try:
                if infos:
                    info = dataset.get_data_info(i)
                    name = str(info.get('img_path', name))
                    self.check_label(split, name, info.get('gt_label'))
                dataset[i]
            except Exception as error:
                failures.setdefault(_described(error), []).append(name)
        for reason, names in failures.items():
            self.report.problem(f'{split}: {len(names)} items cannot be loaded ({_first(names)}): {reason}')

    def check_label(self, split: str, name: str, label: object) -> None:
        head = next(iter(self.heads), None)
        if head and label is not None and np.size(label) and not 0 <= np.min(label) <= np.max(label) < self.heads[head]:
            raise UserError(f'label {label} does not fit the {self.heads[head]} classes of model.{head}.num_classes')

    def check_evaluators(self) -> None:
        """Files that the metrics read: they are stated apart from the data sets."""
        for split in SPLITS[1:]:
            for path in sorted(set(_ann_files(self.cfg.get(f'{split}_evaluator'))) - self.expected):
                if not _exists(path):
                    self.report.problem(
                        f'{split}_evaluator: ann_file {path} does not exist; the metric reads its own: set '
                        f'--cfg-options {split}_evaluator.ann_file=FILE'
                    )

    def choose(self, items: object) -> list:
        items = list(items)
        return self.random.sample(items, min(self.sample, len(items)))

    def open(self, where: str, path: str) -> np.ndarray | None:
        try:
            return read_image(path)
        except UserError as error:
            self.report.problem(f'{where}: {path} {error}: replace it, or remove it and its annotation')
        return None


def _parts(where: str, key: str, settings: dict) -> Iterator[tuple[str, str, dict]]:
    """The data sets that others wrap or join, with names and their keys in the config."""
    if settings.get('datasets'):
        for i, part in enumerate(settings['datasets']):
            yield from _parts(f'{where}[{i}]', f'{key}.datasets.{i}', part)
    elif isinstance(settings.get('dataset'), dict):
        yield from _parts(where, f'{key}.dataset', settings['dataset'])
    else:
        yield where, key, settings


def _is_a(dataset: object, base: str, *same: str) -> bool:
    """Whether a data set is of a class of this name and has these of its methods unchanged."""
    found = next((kind for kind in type(dataset).__mro__ if kind.__name__ == base), None)
    return found is not None and all(getattr(type(dataset), name) is getattr(found, name) for name in same)


def _source(kind: str, path: str) -> str | None:
    return next((source for word, source in SOURCES.get(kind, {}).items() if word in _name(path)), None)


def _name(path: str) -> str:
    return os.path.basename(path.rstrip('/'))


def _remote(path: str) -> bool:
    return '://' in path


def _exists(path: str) -> bool:
    return _remote(path) or os.path.exists(path)


def _is_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and np.isfinite(value) for value in values)
    )


def _counts(mask: object) -> object:
    return mask.get('counts') if isinstance(mask, dict) else None


def _loads_masks(dataset: BaseDataset) -> bool:
    return any(getattr(t, 'with_mask', False) for t in getattr(dataset.pipeline, 'transforms', []))


def _ann_files(node: object) -> Iterator[str]:
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _ann_files(item)
    elif isinstance(node, dict):
        if isinstance(node.get('ann_file'), str):
            yield node['ann_file']
        yield from _ann_files(node.get('metrics'))


def _described(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'


def main() -> None:
    args = parse_args()
    # What the toolboxes have to say of their own settings would drown what is said of the data.
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('check_dataset', log_level='ERROR')
    with user_errors():
        cfg = load_config(args.config, args.cfg_options)
        report = Checker(cfg, args.sample, args.seed).run()
        if report.problems:
            listed = '\n'.join(f'  {i}. {text}' for i, text in enumerate(report.problems, 1))
            raise UserError(f'not yet ready for a training, {len(report.problems)} to mend:\n{listed}')
        notes = f' Read the notes above first ({report.notes}).' if report.notes else ''
        print(f'The data fit the config: a training can start.{notes}')


if __name__ == '__main__':
    main()
