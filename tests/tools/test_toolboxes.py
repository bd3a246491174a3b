"""tools/train.py and tools/test.py on configs of mmdet, mmseg and mmpose with ScopeViT as backbone.

Random pictures in COCO's and ADE20K's layouts: this shows that the tools work in every toolbox,
with its own data classes and metrics, not that anything is learnt.
"""

import json
import math
import pickle

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from helpers import tool, write_image

pytestmark = pytest.mark.slow

BACKBONE = dict(
    _delete_=True,
    type='scopevit.ScopeViT',
    arch=dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 4)),
)
ALL = dict(BACKBONE, out_indices=(0, 1, 2, 3))
CHANNELS = [16, 32, 32, 64]
IN_PROCESS = dict(num_workers=0, persistent_workers=False, batch_size=2)


def write_config(path, base, **settings):
    text = '\n'.join(f'{key} = {value!r}' for key, value in settings.items())
    path.write_text(f'_base_ = {base!r}\n{text}\n')
    return path


@pytest.fixture(scope='session')
def coco(tmp_path_factory):
    """Four pictures, each with one person: box, mask and 17 keypoints."""
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(4):
        write_image(root / 'images' / f'{i}.jpg', seed=i, size=(72, 96))
        images.append(dict(id=i, file_name=f'{i}.jpg', height=72, width=96))
        x, y, w, h = 20, 10, 40, 50
        keypoints = np.stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), np.full(17, 2)], 1)
        annotations.append(
            dict(
                id=i + 1,
                image_id=i,
                category_id=1,
                bbox=[x, y, w, h],
                area=w * h,
                iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                keypoints=keypoints.flatten().tolist(),
                num_keypoints=17,
            )
        )
    # All of COCO's categories, as in the real files: mmdet maps its 80 labels to these.
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    categories[0].update(keypoints=[str(k) for k in range(17)], skeleton=[])
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations.json').write_text(json.dumps(content))
    return root


def detection(coco, folder):
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    resize = dict(type='Resize', scale=(96, 72), keep_ratio=True)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    dataset = dict(data_root=str(coco), ann_file='annotations.json', data_prefix=dict(img='images/'))
    train = dict(dataset, pipeline=[*load, resize, dict(type='PackDetInputs')])
    test = dict(dataset, pipeline=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=keys)])
    test_loader = dict(IN_PROCESS, batch_size=1, dataset=test)
    evaluator = dict(ann_file=str(coco / 'annotations.json'))
    return write_config(
        folder / 'detection.py',
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        model=dict(backbone=ALL, neck=dict(in_channels=CHANNELS), test_cfg=dict(score_thr=0.0)),
        train_dataloader=dict(IN_PROCESS, dataset=train),
        val_dataloader=test_loader,
        test_dataloader=test_loader,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(max_epochs=1),
    )


def segmentation(folder):
    for split in ('training', 'validation'):
        for i in range(4):
            write_image(folder / 'ade' / 'images' / split / f'{i}.jpg', seed=i, size=(64, 80))
            labels = np.random.default_rng(i).integers(0, 151, (64, 80), dtype=np.uint8)
            path = folder / 'ade' / 'annotations' / split / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), labels)
    load, annotations = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)
    train = [load, annotations, dict(type='RandomCrop', crop_size=(64, 64)), dict(type='PackSegInputs')]
    dataset = dict(data_root=str(folder / 'ade'))
    test_loader = dict(
        IN_PROCESS, batch_size=1, dataset=dict(dataset, pipeline=[load, annotations, dict(type='PackSegInputs')])
    )
    return write_config(
        folder / 'segmentation.py',
        'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
        crop_size=(64, 64),
        model=dict(
            pretrained=None, data_preprocessor=dict(size=(64, 64)), backbone=ALL, neck=dict(in_channels=CHANNELS)
        ),
        train_dataloader=dict(IN_PROCESS, dataset=dict(dataset, pipeline=train)),
        val_dataloader=test_loader,
        test_dataloader=test_loader,
        train_cfg=dict(max_iters=2, val_interval=2),
        default_hooks=dict(checkpoint=dict(interval=2)),
    )


def pose(coco, folder):
    dataset = dict(data_root=str(coco), ann_file='annotations.json', data_prefix=dict(img='images/'))
    test_loader = dict(IN_PROCESS, dataset=dict(dataset, bbox_file=''))
    evaluator = dict(ann_file=str(coco / 'annotations.json'))
    return write_config(
        folder / 'pose.py',
        'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
        model=dict(backbone=BACKBONE, head=dict(in_channels=64)),
        train_dataloader=dict(IN_PROCESS, dataset=dataset),
        val_dataloader=test_loader,
        test_dataloader=test_loader,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(max_epochs=1, val_interval=1),
        default_hooks=dict(checkpoint=dict(interval=1, save_best=None)),
    )


@pytest.mark.parametrize(
    ('task', 'metric', 'checkpoint'),
    [
        ('detection', 'coco/bbox_mAP', 'epoch_1.pth'),
        ('segmentation', 'mIoU', 'iter_2.pth'),
        ('pose', 'coco/AP', 'epoch_1.pth'),
    ],
)
def test_train_and_test(task, metric, checkpoint, coco, tmp_path):
    if task == 'segmentation':
        config = segmentation(tmp_path)
    else:
        config = (detection if task == 'detection' else pose)(coco, tmp_path)
    result = tool('train.py', config, '--work-dir', tmp_path / 'run')
    replaced = 'SyncBN becomes BN' in result.stdout + result.stderr
    assert replaced == (task == 'segmentation')  # the only base with SyncBN
    tool('test.py', config, tmp_path / 'run' / checkpoint, '--work-dir', tmp_path / 'test')
    assert math.isfinite(json.loads((tmp_path / 'test' / 'metrics.json').read_text())[metric])
    assert len(pickle.loads((tmp_path / 'test' / 'predictions.pkl').read_bytes())) == 4
