"""What an analysis says of predictions whose mistakes are known, and that it agrees with the toolboxes' metrics."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from helpers import load_tool
from scopevit.analysis.predictions import analyze, summary, write_figures, write_tables
from scopevit.utils.errors import UserError


class Samples:
    """A data set of given samples."""

    def __init__(self, infos, **metainfo):
        self.infos, self.metainfo = infos, metainfo

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return dict(self.infos[index])


def read(path):
    return list(csv.DictReader(path.open(encoding='utf-8')))


def classified(labels, scores):
    infos = [dict(img=np.zeros((8, 8, 3), np.uint8)) for _ in labels]
    results = [
        dict(
            gt_label=torch.tensor([label]),
            pred_label=torch.tensor([int(np.argmax(score))]),
            pred_score=torch.tensor(score),
        )
        for label, score in zip(labels, scores)
    ]
    return Samples(infos, classes=('cat, felis', 'dog', 'hämster', 'yak')), results


SCORES = [[0.9, 0.1, 0, 0], [0.2, 0.7, 0.1, 0], [0, 1.0, 0, 0], [0.3, 0.4, 0.3, 0], [0.1, 0.0, 0.9, 0]]


def test_classes_their_confusions_and_the_worst_image(tmp_path):
    dataset, results = classified([0, 0, 1, 2, 2], SCORES)
    analysis = analyze(Config(), dataset, results)
    assert analysis.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert [image.index for image in analysis.images] == [1, 3, 0, 4, 2]
    assert analysis.images[0].text == 'dog 70%, is cat (20%)'
    assert analysis.confused(5) == [('cat', 'dog', 1, 0.5), ('hämster', 'dog', 1, 0.5)]

    written = write_tables(analysis, tmp_path) + write_figures(analysis, Config(), tmp_path, count=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)
    dog, yak = (
        next(row for row in read(tmp_path / 'per_class.csv') if row['class'] == name) for name in ('dog', 'yak')
    )
    assert (dog['precision'], dog['recall'], dog['F1'], dog['taken for']) == ('0.3333', '1.0000', '0.5000', '')
    assert (yak['images'], yak['recall'], yak['AP']) == ('0', '', '')
    assert json.loads((tmp_path / 'confusion_matrix.json').read_text())['matrix'] == analysis.confusion.tolist()
    for name in ('confusion_matrix.png', 'precision_recall.png', 'worst.jpg'):
        assert cv2.imread(str(tmp_path / name)).std() > 5
    assert '3 classes by F1' in summary(analysis)


def test_average_precision_of_classes_is_that_of_mmpretrain():
    from mmpretrain.evaluation import AveragePrecision

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    scores = rng.dirichlet([1, 1, 1], 400) + 0.7 * np.eye(3)[labels]
    rows = analyze(Config(), *classified(labels, scores)).rows
    theirs = AveragePrecision.calculate(torch.tensor(scores), torch.tensor(np.eye(3)[labels]), average=None) / 100
    # COCO's 101 points, where theirs has one for each image.
    assert [row['AP'] for row in rows[:3]] == pytest.approx(theirs.tolist(), abs=0.02)


def boxes(labelled, predicted):
    """A data set and results, of (label, box) and (label, box, score) of each image."""
    infos, results = [], []
    for objects, found in zip(labelled, predicted):
        instances = [dict(bbox=box, bbox_label=label, ignore_flag=flag) for label, box, flag in objects]
        infos.append(dict(img_path='x.jpg', height=100, width=100, instances=instances))
        labels, places, scores = ([entry[k] for entry in found] for k in range(3))
        results.append(
            dict(
                pred_instances=dict(
                    labels=torch.tensor(labels, dtype=torch.long),
                    bboxes=torch.tensor(places, dtype=torch.float32).reshape(-1, 4),
                    scores=torch.tensor(scores, dtype=torch.float32),
                )
            )
        )
    return Samples(infos, classes=('person', 'kite', 'boat')), results


def test_boxes_found_missed_confused_and_ignored():
    left, right, crowd = [0, 0, 40, 40], [50, 0, 90, 40], [0, 50, 100, 100]
    dataset, results = boxes(
        [[(0, left, 0), (1, right, 0), (0, crowd, 1)], [(0, left, 0)], []],
        [[(0, left, 0.9), (0, right, 0.8), (0, crowd, 0.1)], [(0, left, 0.1)], []],
    )
    analysis = analyze(Config(), dataset, results)
    assert analysis.labels[-1] == 'background'
    assert analysis.confusion.tolist() == [[1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    person, kite, boat = analysis.rows
    assert (person['objects'], person['precision'], person['recall']) == (2, 0.5, 0.5)  # the crowd counts for nothing
    assert (kite['AP'], kite['taken for'], boat['AP'], boat['objects']) == (0, 'person', None, 0)
    assert [image.index for image in analysis.images] == [1, 0, 2]
    assert analysis.images[1].text == '1 found, 1 missed, 1 wrong'


def test_average_precision_of_boxes_is_that_of_mmdets_metric(tmp_path):
    from mmdet.evaluation import CocoMetric

    rng = np.random.default_rng(0)
    labelled, predicted, annotations = [], [], []
    for i in range(12):
        corner = rng.uniform(0, 50, (4, 2))
        places = np.concatenate([corner, corner + rng.uniform(10, 40, (4, 2))], 1).tolist()
        labels = rng.integers(0, 2, 4).tolist()
        labelled.append([(label, place, int(k == 3)) for k, (label, place) in enumerate(zip(labels, places))])
        moved = (np.array(places) + rng.normal(0, 2, (4, 4))).tolist()
        predicted.append([(label, place, float(rng.uniform())) for label, place in zip(labels, moved)])
        predicted[-1] += [(int(rng.integers(0, 2)), [5, 5, 30, 30], float(rng.uniform()))]
        for label, (x, y, right, bottom), flag in labelled[-1]:
            size = [x, y, right - x, bottom - y]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=label,
                    bbox=size,
                    area=size[2] * size[3],
                    iscrowd=flag,
                )
            )
    dataset, results = boxes(labelled, predicted)
    file = tmp_path / 'labels.json'
    categories = [dict(id=k, name=name) for k, name in enumerate(('person', 'kite'))]
    images = [dict(id=i, file_name=f'{i}.jpg', height=100, width=100) for i in range(12)]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    metric = CocoMetric(str(file), metric='bbox', classwise=True)
    metric.dataset_meta = dict(classes=('person', 'kite'))
    metric.process({}, [dict(img_id=i, ori_shape=(100, 100), **result) for i, result in enumerate(results)])
    theirs = metric.evaluate(12)
    ours = {row['class']: row['AP'] for row in analyze(Config(), dataset, results).rows}
    assert 0.1 < ours['person'] < 0.9
    for name in ('person', 'kite'):
        assert ours[name] == pytest.approx(theirs[f'coco/{name}_precision'], abs=6e-4)  # which is rounded


def test_pixels_are_those_of_mmsegs_metric(tmp_path):
    from mmseg.datasets import BaseSegDataset
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(0)
    label_maps = [rng.integers(0, 4, (20, 30), dtype=np.uint8) for _ in range(3)]  # 0 is ignored
    for i, label_map in enumerate(label_maps):
        for folder, content in (('images', np.zeros((20, 30, 3), np.uint8)), ('maps', label_map)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f'{i}.png'), content)
    dataset = BaseSegDataset(
        data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='maps'), img_suffix='.png',
        metainfo=dict(classes=('wall', 'sky', 'tree')), reduce_zero_label=True, test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )  # fmt: skip
    found = [
        np.where(rng.uniform(size=label_map.shape) < i / 3, label_map - 1, 1) % 3
        for i, label_map in enumerate(label_maps)
    ]
    results = [dict(img_path=f'{i}.png', pred_sem_seg=dict(data=labels[None])) for i, labels in enumerate(found)]
    analysis = analyze(Config(), dataset, results)
    areas = [
        IoUMetric.intersect_and_union(torch.tensor(labels), torch.tensor(label_map - 1), 3, 255)
        for labels, label_map in zip(found, label_maps)
    ]
    union = sum(area[1] for area in areas)
    assert [row['IoU'] for row in analysis.rows] == pytest.approx((sum(area[0] for area in areas) / union).tolist())
    assert analysis.confusion.sum() == sum((label_map > 0).sum() for label_map in label_maps)
    assert [image.index for image in analysis.images] == [0, 1, 2]
    assert analyze(Config(), dataset, results, most=2).of == '2 of 3 images'


def test_keypoints_are_compared_by_cocos_oks():
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    coco, infos, results, labelled = COCO(), [], [], []
    for i in range(4):
        points = rng.uniform(10, 90, (1, 17, 2))
        visible = rng.integers(0, 2, (1, 17))
        infos.append(dict(img_id=i, img_path=f'{i}.jpg', keypoints=points, keypoints_visible=visible, area=2000.0))
        moved = points + rng.normal(0, 2 + 4 * i, points.shape)
        results.append(dict(img_id=i, pred_instances=dict(keypoints=moved)))
        flat = np.concatenate([points[0], 2 * visible[0][:, None]], 1).flatten().tolist()
        labelled.append(
            dict(
                id=i + 1, image_id=i, category_id=1, keypoints=flat, num_keypoints=int(visible.sum()), area=2000.0,
                bbox=[0, 0, 100, 100], iscrowd=0,
            )
        )  # fmt: skip
    coco.dataset = dict(images=[dict(id=i) for i in range(4)], annotations=labelled, categories=[dict(id=1)])
    coco.createIndex()
    found = [
        dict(
            image_id=i,
            category_id=1,
            score=1.0,
            keypoints=np.insert(r['pred_instances']['keypoints'][0], 2, 1, 1).flatten().tolist(),
        )
        for i, r in enumerate(results)
    ]
    evaluation = COCOeval(coco, coco.loadRes(found), 'keypoints')
    evaluation._prepare()
    theirs = [float(evaluation.computeOks(i, 1)[0, 0]) for i in range(4)]
    meta = parse_pose_metainfo(dict(from_file='configs/_base_/datasets/coco.py'))
    analysis = analyze(Config(), Samples(infos, **meta), results)
    ours = {image.index: image.score for image in analysis.images}
    assert [ours[i] for i in range(4)] == pytest.approx(theirs)
    assert [image.score for image in analysis.images] == sorted(ours.values())
    assert analysis.rows[0]['keypoint'] == 'nose'
    assert sum(row['labelled'] for row in analysis.rows) == sum(info['keypoints_visible'].sum() for info in infos)


@pytest.mark.parametrize(
    ('dataset', 'results', 'says'),
    [
        (Samples([{}]), [], 'the test set has 1; were they made with another config'),
        (Samples([]), [], 'the test set is empty'),
        (
            Samples([dict(img_path='a.jpg')]),
            [dict(img_path='b.jpg')],
            'is of b.jpg, but image 0 of the test set is a.jpg',
        ),
        (Samples([{}]), [dict(pred_text='a')], 'no analysis for predictions of pred_text'),
        (Samples([{}]), [dict(pred_label=torch.tensor([1]))], 'no scores, or the test set no labels'),
        (*boxes([[]], [[(0, [0, 0, 9, 9], 0.9)]]), 'no object of the test set is labelled'),
    ],
)
def test_what_cannot_be_analysed_is_said(dataset, results, says):
    with pytest.raises(UserError, match=says):
        analyze(Config(), dataset, results)


def test_a_test_goes_on_when_the_analysis_fails(tmp_path, caplog):
    (tmp_path / 'p.pkl').write_bytes(b'no pickle')
    load_tool('test.py').write_analysis(Config(), None, str(tmp_path / 'p.pkl'), str(tmp_path / 'analysis'))
    assert not (tmp_path / 'analysis').exists()
