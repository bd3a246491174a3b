"""Rules for people's joints in COCO's form, which mmpose reads."""

import json
from collections.abc import Iterator

import numpy as np

from ..utils.errors import one_line
from .coco import (
    MOST_PIXELS_AWAY,
    check_boxes,
    check_crowds,
    check_ids,
    check_image_files,
    check_images,
    check_names,
    check_pixels,
)
from .coco_file import CocoFile, is_numbers
from .findings import Finding, faulty
from .part import Part


def check_head(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """The head has a map for each joint that the model learns, whatever joints the data set itself has."""
    converted = [t.num_keypoints for t in part.transforms if type(t).__name__ == 'KeypointConverter']
    learnt = converted[0] if converted else part.dataset.metainfo.get('num_keypoints')
    head = getattr(getattr(part.model, 'module', part.model), 'head', None)  # maybe wrapped for several processes
    channels = getattr(head, 'out_channels', None)
    if part.dataset.data_mode != 'topdown' or not isinstance(channels, int) or learnt is None:
        return
    # A heatmap and the two offsets of each joint.
    is_combined = getattr(getattr(head, 'decoder', None), 'heatmap_type', None) == 'combined'
    wanted = learnt * (3 if is_combined else 1)
    if channels != wanted:
        yield part.error(
            f'the data have {learnt} joints, but model.head.out_channels is {channels}: set it to {wanted}, or '
            'metainfo of the data set to the joints of the model'
        )


def check_joints(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """Each person has the joints that metainfo describes, sound ones."""
    where, number = part.where, part.dataset.metainfo['num_keypoints']
    people = [a for a in coco.annotations if 'keypoints' in a]
    if not people:
        yield part.error(f'{coco.path} has no keypoints: take the file with joints (person_keypoints_...json)')
        return
    # One other number for everybody is a fault of the config, which is not told person by person.
    there = {len(p['keypoints']) / 3 if isinstance(p['keypoints'], list) else None for p in people}
    if len(there) == 1 and there not in ({None}, {number}):
        yield part.error(
            f'{coco.path} has {there.pop():g} joints for each person, but metainfo of the data set describes {number}: '
            'make them agree'
        )
        return
    wrong, outside, miscounted, usable = [], [], [], 0
    for person in people:
        name, joints = coco.name(person), person['keypoints']
        # What has another form cannot be counted, so the rules that follow leave it out.
        if not is_numbers(joints, 3 * number) or max(map(abs, joints)) > MOST_PIXELS_AWAY:
            wrong.append(f'{name}: {len(joints) if isinstance(joints, list) else joints} numbers')
            continue
        joints = np.reshape(joints, (number, 3))
        marked = joints[joints[:, 2] > 0]
        usable += len(marked) > 0 and not person.get('iscrowd')
        if person.get('num_keypoints', len(marked)) != len(marked):
            miscounted.append(name)
        # Labelling tools round, so that a joint on the edge may lie a pixel beyond it.
        size = coco.sizes.get(person.get('image_id'))
        if size and len(marked) and ((marked[:, :2] < -1) | (marked[:, :2] > np.add(size, 1))).any():
            outside.append(name)
    total = len(people)
    what = f'lists of keypoints are not {number} times x, y, visibility'
    yield from faulty(where, wrong, total, what, 'correct or remove them', is_fatal=True)
    yield from faulty(where, miscounted, total, 'num_keypoints are not the number of visible joints', 'correct them')
    yield from faulty(where, outside, total, 'people have joints outside the image', 'mark those as not visible (0)')
    if not usable:
        yield part.error(f'no person in {coco.path} has a visible joint: there is none to learn')
    elif usable < total:
        text = f'{total - usable:,} of {total:,} people have no visible joint or are crowds; mmpose passes over them'
        yield part.note(text)


def check_detections(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """The boxes of people that a detector found are of these images."""
    path = getattr(part.dataset, 'bbox_file', None)
    if not path:
        return
    remedy = f'or the annotated boxes with --cfg-options {part.key}.bbox_file='
    try:
        with open(path) as file:
            found = json.load(file)
        unknown = [f'image {f["image_id"]}' for f in found if f['image_id'] not in coco.sizes]
        people = [f for f in found if f['category_id'] == 1 and is_numbers(f['bbox'], 4) and f['score'] >= 0]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        text = f'{path} is not a list of detections as COCO has them ({one_line(error)}): use another, {remedy}'
        yield part.error(text)
        return
    what = f'detections in {path} are of images that the annotation file does not list'
    remedy = f'use the detections of this split, {remedy}'
    yield from faulty(part.where, unknown, len(found), what, remedy, is_fatal=True)
    yield part.info(f'{len(people):,} detections of people')


def check_evaluated(part: Part, coco: CocoFile) -> Iterator[Finding]:
    """People have areas of numbers, which the evaluation needs of each, and counted joints."""
    odd = [
        f'{coco.name(a)}: area {str(a.get("area"))[:60]}'
        for a in coco.annotations
        if 'keypoints' in a and ('area' in a or not part.is_learnt) and not is_numbers([a.get('area')], 1)
    ]
    remedy = 'set area to that of the person in pixels'
    yield from faulty(part.where, odd, len(coco.annotations), 'people have no area', remedy, is_fatal=True)


QUICK_PERSON_RULES = (
    check_names, check_head, check_ids, check_boxes, check_crowds, check_joints, check_evaluated,
    check_detections, check_image_files,
)  # fmt: skip
PERSON_RULES = (check_images, *QUICK_PERSON_RULES, check_pixels)
