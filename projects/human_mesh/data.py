"""Data sets and labels: bodies that are drawn while they are asked for, and what mmpose's pipelines make of them."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.datasets.transforms import PackPoseInputs

from scopevit.utils.errors import UserError

from .bodies import CapsuleBody
from .bodies.rotations import matrix_from_axis_angle, mirrored
from .bodies.skeleton import JOINTS, MIRRORED, SHAPES
from .synthetic import SIZE, draw_body

SPLITS = ('train', 'val')


@DATASETS.register_module()
class PosedBodies(BaseDataset):
    """Bodies in drawn poses before synthetic backgrounds; nothing is read from or written to a disk.

    Items are as those of mmpose's ``CocoDataset``, with the image loaded, and with ``body_rotations`` (24, 3, 3) and
    ``body_shape`` (10,).

    Args:
        count: How many; a larger set begins with a smaller one.
        split: ``'train'`` or ``'val'``, which have nothing in common.
        seed: Of all that is drawn.
        body: The body, as the registry of models builds it; by default our own.
        labels: ``'all'``, or ``'keypoints'`` for COCO's alone, as photographs have them.
        pipeline: Transforms.
        test_mode: As MMEngine has it.
        metainfo: Beside that of COCO's keypoints.
    """

    METAINFO = dict(from_file='configs/_base_/datasets/coco.py')

    def __init__(
        self,
        count: int,
        split: str = 'train',
        seed: int = 0,
        body: dict | None = None,
        labels: str = 'all',
        pipeline: list | tuple = (),
        test_mode: bool = False,
        metainfo: dict | None = None,
    ) -> None:
        if split not in SPLITS or labels not in ('all', 'keypoints'):
            raise UserError(
                "PosedBodies takes split='train' or 'val' and labels='all' or 'keypoints', "
                f'but got split={split!r} and labels={labels!r}'
            )
        self.count, self.split, self.seed, self.labels = count, SPLITS.index(split), seed, labels
        self.body = MODELS.build(body) if body else CapsuleBody()
        super().__init__(pipeline=list(pipeline), test_mode=test_mode, metainfo=metainfo, serialize_data=False)

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        return parse_pose_metainfo(metainfo or cls.METAINFO)

    def load_data_list(self) -> range:
        return range(self.count)

    def _join_prefix(self) -> None:
        """There are no files."""

    def get_data_info(self, index: int) -> dict:
        number = self.data_list[index]
        drawn = draw_body(self.seed, self.split, number, self.body)
        keypoints = drawn.keypoints[None].astype(np.float32)
        item = dict(
            id=number,
            img_id=number,
            category_id=1,
            img=drawn.image,
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
            bbox=drawn.box[None],
            bbox_score=np.ones(1, np.float32),
            keypoints=keypoints[..., :2],
            keypoints_visible=np.minimum(keypoints[..., 2], 1),
        )
        if self.labels == 'all':
            item.update(body_rotations=drawn.rotations, body_shape=drawn.shape)
        names = ('flip_pairs', 'flip_indices', 'upper_body_ids', 'lower_body_ids', 'dataset_name')
        return {**item, **{name: self.metainfo[name] for name in names}}


@TRANSFORMS.register_module()
class BodyLabels(BaseTransform):
    """Labels of a body in its crop: mmpose's transforms have turned and mirrored the image, and here the body follows.

    Stands between ``TopdownAffine`` and ``PackPoseInputs``. Adds ``keypoint_labels`` (1, 17, 2), with the crop's edges
    at -1 and 1, ``keypoint_weights`` (1, 17), ``body_rotations`` (1, 24, 3, 3), ``body_shape`` (1, 10) and ``has_body``
    (1,), 0 where the data have keypoints alone; rotations and shape are then zeros.
    """

    NAMES = ('keypoint_labels', 'keypoint_weights', 'body_rotations', 'body_shape', 'has_body')

    def transform(self, results: dict) -> dict:
        size = np.array(results['input_size'], np.float32)
        if 'keypoints' in results:  # not where an image alone is given
            places = results['transformed_keypoints'] / size * 2 - 1
            results['keypoint_labels'] = places.astype(np.float32)
            results['keypoint_weights'] = (results['keypoints_visible'] > 0).astype(np.float32)
        has_body = 'body_rotations' in results
        rotations = np.zeros((len(JOINTS), 3, 3), np.float32)
        if has_body:
            rotations = self.follow(results)
        results['body_rotations'] = rotations[None]
        results['body_shape'] = np.asarray(results.get('body_shape', np.zeros(SHAPES)), np.float32)[None]
        results['has_body'] = np.array([has_body], np.float32)
        results['label_mapping_table'] = {**PackPoseInputs.label_mapping_table, **{name: name for name in self.NAMES}}
        return results

    def follow(self, results: dict) -> np.ndarray:
        """The rotations (24, 3, 3) of the body that is seen in the crop."""
        rotations = torch.as_tensor(results['body_rotations'], dtype=torch.float32)
        if results.get('flip'):
            if results['flip_direction'] != 'horizontal':
                raise UserError(f'BodyLabels follows horizontal flips alone, not {results["flip_direction"]} ones')
            rotations = mirrored(rotations)[list(MIRRORED)]
        # The box is turned in the image, so the image is turned back in the box.
        angle = -np.radians(float(results.get('bbox_rotation', [0])[0]))
        rotations = rotations.clone()
        rotations[0] = matrix_from_axis_angle(torch.tensor([0, 0, angle], dtype=torch.float32)) @ rotations[0]
        return rotations.numpy()
