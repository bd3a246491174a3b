"""Test-time augmentation: each image as it is and flipped, at several sizes; predictions are merged by the toolbox."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from ..utils.config import first_value, walk
from ..utils.errors import UserError

# What merges predictions, where a config does not say.
_MERGING: dict[str, dict[str, Any]] = dict(
    mmpretrain=dict(type='AverageClsScoreTTA'),
    mmdet=dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
    mmseg=dict(type='SegTTAModel'),
)


def augment_test(cfg: Config, scales: Sequence[float]) -> None:
    """Let a config test each image as it is and flipped, in its usual size times each of ``scales``.

    What ``tta_pipeline`` a config inherits from a toolbox is not taken: its sizes are those of that toolbox's data.
    mmpose flips heatmaps in its models, by ``flip_test``.

    Raises:
        UserError: If the toolbox cannot merge the predictions of this model.
    """
    scope = cfg.get('default_scope')
    if not cfg.get('model'):
        raise UserError('this config has no model')
    if scope == 'mmpose':
        if list(scales) != [1.0]:
            raise UserError('--tta: mmpose flips, but does not resize; leave the scales out')
        cfg.model.setdefault('test_cfg', {})['flip_test'] = True
        return
    if scope not in _MERGING:
        raise UserError(f'--tta: {scope} merges no predictions; {", ".join([*_MERGING, "mmpose"])} do')
    if scope == 'mmdet' and (first_value(cfg.model, 'mask_head') or first_value(cfg.model, 'panoptic_head')):
        raise UserError('--tta: mmdet merges boxes but no masks; it is for detectors without a mask head')
    for part in walk(cfg.test_dataloader):
        if part.get('pipeline'):
            part['pipeline'] = augmented(part['pipeline'], scales)
    merging = cfg.get('tta_model') or _MERGING[scope]
    cfg.model = ConfigDict(**deepcopy(merging), module=cfg.model)


def augmented(pipeline: Sequence[dict], scales: Sequence[float]) -> list[dict]:
    """A pipeline whose steps from the first that sets a size on are run for each scale, without a flip and with it."""
    *steps, pack = map(deepcopy, pipeline)
    first = next((i for i, step in enumerate(steps) if {'scale', 'crop_size'} & set(step)), len(steps))
    if first == len(steps) and list(scales) != [1.0]:
        raise UserError('--tta: no step of the test pipeline sets a size; leave the scales out')
    if pack.get('meta_keys'):  # by which flips are undone
        pack['meta_keys'] = tuple(dict.fromkeys([*pack['meta_keys'], 'flip', 'flip_direction']))
    # The first has the ground truth as it is.
    flips = [dict(type='RandomFlip', prob=float(is_flipped)) for is_flipped in (False, True)]
    sized = [[_resized(step, scale) for step in steps[first:]] for scale in scales]
    variants = [dict(type='mmcv.Compose', transforms=[*resizing, flip]) for resizing in sized for flip in flips]
    return [*steps[:first], dict(type='TestTimeAug', transforms=[variants, [pack]])]


def _resized(step: dict, scale: float) -> dict:
    """A step whose sizes are multiplied."""

    def times(size: Any) -> Any:
        if isinstance(size, (list, tuple)):
            return tuple(map(times, size))
        return max(round(size * scale), 1) if 0 < size < math.inf else size  # -1 and inf set no limit

    return {key: times(value) if key in ('scale', 'crop_size') else value for key, value in step.items()}
