"""Small batches with all the annotations that a model of any toolbox may want, for a step of training.

The labels are of the real kinds and sizes of numbers, so that training losses work; they are
used to find out whether a model trains, not to learn anything.
"""

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS
from mmengine.structures import InstanceData, PixelData
from torch import nn

from scopevit.apis.model import image_channels, runnable
from scopevit.utils.config import first_value, walk


def trial_batch(cfg: Config, model: nn.Module, size: int, training: bool = False) -> dict:
    """A preprocessed batch ``dict(inputs, data_samples)`` for a model built from ``cfg``.

    Args:
        size: Height and width of the images, where the model does not set them.
    """
    settings, part = runnable(cfg, model)
    toolbox = type(part).__module__.split('.')[0]
    makers = dict(mmpretrain=_classification, mmdet=_detection, mmseg=_segmentation, mmpose=_pose)
    data = makers[toolbox](cfg, settings, part, size, training)
    preprocessor = part.data_preprocessor
    if part is not model:  # the tracker's takes videos
        from mmdet.models import DetDataPreprocessor

        preprocessor = DetDataPreprocessor(pad_size_divisor=32).to(next(part.parameters()).device)
    batch = preprocessor(data, training)
    if isinstance(batch['inputs'], (list, tuple)) and not training:
        batch['inputs'] = batch['inputs'][0]  # without a loss, one view of each image is enough
    return batch


def _count(training: bool) -> int:
    """Batch norm over maps of 1x1 needs two images; some operators take one alone, outside training."""
    return 2 if training else 1


def _image(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 255, (channels, height, width), dtype=np.uint8))


def _classification(cfg: Config, settings: ConfigDict, model: nn.Module, size: int, training: bool) -> dict:
    from mmpretrain.structures import DataSample

    rng = np.random.default_rng(0)
    num_classes = first_value(settings, 'num_classes') or 10
    head_type = str((settings.get('head') or {}).get('type'))
    images, samples = [], []
    for i in range(_count(training)):
        images.append(_image(rng, size, size, image_channels(model)))
        sample = DataSample().set_gt_label(i % num_classes)
        if any(kind in head_type for kind in ('MultiLabel', 'CSRA')):
            sample = DataSample().set_gt_label([0, 1]).set_gt_score(torch.eye(num_classes)[0])
        sample.set_metainfo(dict(img_shape=(size, size), ori_shape=(size, size)))
        samples.append(sample)
    if hasattr(model, 'target_generator'):  # self-supervised: several views of each image
        views = sum(settings.head.get('loss', {}).get('num_crops') or [2])
        return dict(inputs=[torch.stack(images).float()] * views, data_samples=samples)
    return dict(inputs=images, data_samples=samples)


def _boxes(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Boxes (count, 4) inside the image, from a seventh to two thirds of its sides."""
    extent = rng.uniform(0.15, 0.65, (count, 2)) * (width, height)
    corner = rng.uniform(0, 1, (count, 2)) * ((width, height) - extent)
    return torch.from_numpy(np.concatenate([corner, corner + extent], 1)).float()


def _detection(cfg: Config, settings: ConfigDict, model: nn.Module, size: int, training: bool) -> dict:
    from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    rng = np.random.default_rng(0)
    panoptic = first_value(settings, 'num_things_classes')
    num_things = panoptic or first_value(settings, 'num_classes') or 1
    num_stuff = first_value(settings, 'num_stuff_classes') or 0
    semantic = (settings.get('roi_head') or {}).get('semantic_head') or {}
    # RTMDet takes masks for rotated boxes: they are there only if training loads them.
    with_masks = not cfg.get('train_dataloader') or any(
        t.get('with_mask', t.get('type') == 'LoadPanopticAnnotations') for t in walk(cfg.train_dataloader)
    )
    images, samples = [], []
    if 'ReID' in type(model).__name__:  # upright crops of people, two of each for its triplets
        images = [_image(rng, 256, 128) for _ in range(4)]
        return dict(inputs=images, data_samples=[ReIDDataSample().set_gt_label(i // 2) for i in range(4)])
    height = width = size
    for i in range(_count(training)):
        images.append(_image(rng, height, width))
        boxes = _boxes(rng, 4, height, width)
        masks = np.zeros((len(boxes), height, width), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_id=i,
                img_path='none',
                ori_shape=(height, width),
                img_shape=(height, width),
                scale_factor=(1.0, 1.0),
                flip=False,
                flip_direction=None,
                homography_matrix=np.eye(3, dtype=np.float32),
                border=(0, height, 0, width),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(boxes),
            labels=torch.from_numpy(rng.integers(0, num_things, len(boxes))),
        )
        sample.ignored_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.zeros(0, 4)),
            labels=torch.zeros(0, dtype=torch.long),
        )
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(masks, height, width)
            sample.ignored_instances.masks = BitmapMasks(masks[:0], height, width)
        # What a first stage would propose, for Fast R-CNN.
        proposals = torch.cat([boxes, _boxes(rng, 20, height, width)])
        sample.proposals = InstanceData(bboxes=proposals, scores=torch.ones(len(proposals)))
        if num_stuff:
            segments = torch.full((1, height, width), num_things, dtype=torch.long)
            segments[:, height // 2 :] = 255
            segments[:, : height // 4] = num_things + num_stuff - 1
        else:
            step = 8 if semantic else 1
            segments = torch.zeros(1, height // step, width // step, dtype=torch.long)
        sample.gt_sem_seg = PixelData(sem_seg=segments)
        samples.append(sample)
    if _takes_clips(model):  # the images are the frames of one
        for sample in samples:
            sample.gt_instances.instances_ids = torch.arange(len(sample.gt_instances))
        clip = TrackDataSample()
        clip.video_data_samples = samples
        return dict(inputs=[torch.stack(images)], data_samples=[clip])
    return dict(inputs=images, data_samples=samples)


def _takes_clips(model: nn.Module) -> bool:
    return type(model).__name__ == 'Mask2FormerVideo'


def _segmentation(cfg: Config, settings: ConfigDict, model: nn.Module, size: int, training: bool) -> dict:
    from mmseg.structures import SegDataSample

    model.data_preprocessor.size = (size, size)  # else it pads to the size of the recipe
    model.data_preprocessor.size_divisor = None
    rng = np.random.default_rng(0)
    num_classes = first_value(settings, 'num_classes') or 2
    images, samples = [], []
    for _ in range(_count(training)):
        images.append(_image(rng, size, size, image_channels(model)))
        coarse = rng.integers(0, max(num_classes, 2), (1, 8, 8))
        coarse[0, 0, 0] = 255
        labels = torch.from_numpy(coarse.repeat(size // 8, 1).repeat(size // 8, 2))
        sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=(labels == 0).long())
        sample.gt_depth_map = PixelData(data=torch.from_numpy(rng.uniform(1, 9, (1, size, size))).float())
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _pose(cfg: Config, settings: ConfigDict, model: nn.Module, size: int, training: bool) -> dict:
    """People whose targets the config's own codec makes, as its training pipeline does."""
    from mmpose.datasets.transforms import PackPoseInputs

    target = next((t for t in walk(cfg.get('train_dataloader') or {}) if t.get('type') == 'GenerateTarget'), None)
    codecs = [target['encoder']] if target else [cfg.get('codec')]
    codecs = codecs[0] if isinstance(codecs[0], (list, tuple)) else codecs
    width, height = first_value(codecs, 'input_size') or first_value(codecs, 'image_size') or (size, size)
    num_keypoints = _num_keypoints(settings) // (3 if first_value(codecs, 'heatmap_type') == 'combined' else 1)
    bottom_up = 'BottomUp' in type(model).__name__ or 'Bottomup' in type(model).__name__
    people = 2 if bottom_up else 1
    rng = np.random.default_rng(0)
    generate = TRANSFORMS.build(target) if target and training else None
    codec_type = str(codecs[0].get('type')) if codecs[0] else ''
    axes = 3 if '3D' in codec_type else 2
    if axes == 3:
        num_keypoints = 42  # of two hands, which the head does not say
    images, samples = [], []
    for i in range(_count(training)):
        boxes = _boxes(rng, people, height, width).numpy()
        corner, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        keypoints = (corner + rng.uniform(0, 1, (people, num_keypoints, 2)) * extent).astype(np.float32)
        keypoints = np.pad(keypoints, ((0, 0), (0, 0), (0, axes - 2)))
        results = dict(
            id=i,
            img_id=i,
            img_path='none',
            category_id=[1] * people if bottom_up else 1,
            img=_image(rng, height, width).permute(1, 2, 0).contiguous().numpy(),
            img_shape=(height, width),
            ori_shape=(height, width),
            input_size=(width, height),
            input_center=np.array([width / 2, height / 2], dtype=np.float32),
            input_scale=np.array([width, height], dtype=np.float32),
            flip=False,
            flip_direction=None,
            flip_indices=list(range(num_keypoints)),
            bbox=boxes,
            bbox_score=np.ones(people, dtype=np.float32),
            bbox_scale=np.full((people, 2), 100, dtype=np.float32),
            area=(extent[:, 0, 0] * extent[:, 0, 1]).astype(np.float32),
            category_labels=np.ones(people, dtype=np.int64),
            bbox_labels=np.zeros(people, dtype=np.int64),
            keypoints=keypoints,
            keypoints_visible=np.ones((people, num_keypoints), dtype=np.float32),
            dataset_keypoint_weights=np.ones(num_keypoints, dtype=np.float32),
        )
        if bottom_up:
            results['heatmap_mask'] = np.ones((height // 4, width // 4), dtype=np.float32)
        if axes == 3:  # of two hands
            results.update(rel_root_depth=np.zeros(1), rel_root_valid=np.ones(1), hand_type=np.ones((1, 2)))
            results.update(hand_type_valid=np.ones(1), focal=np.ones(2), principal_pt=np.zeros(2))
        if codec_type == 'DecoupledHeatmap':  # takes corners after a warp, or finds the boxes itself
            del results['bbox']
        if generate is not None:
            results = generate(results)
        packed = PackPoseInputs(pack_transformed=False)(results)
        images.append(packed['inputs'])
        samples.append(packed['data_samples'])
    return dict(inputs=images, data_samples=samples)


def _num_keypoints(settings: ConfigDict) -> int:
    head = settings.head
    for key in ('num_keypoints', 'num_joints', 'out_channels'):
        if head.get(key) is not None:
            return head[key]
    return 17


def parse_losses(losses: dict) -> torch.Tensor | None:
    """Sum of all losses, as MMEngine's training step forms it."""
    total = None
    for name, value in losses.items():
        if 'loss' not in name:
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            item = item.mean()
            total = item if total is None else total + item
    return total
