"""Test-time augmentation of every toolbox."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS

from scopevit.apis.inferencer import build_predictor
from scopevit.apis.model import build_model, in_scope
from scopevit.engine.augmented_test import augment_test, augmented
from scopevit.engine.gpu_settings import has_one_size
from scopevit.utils.config import innermost, load_config
from scopevit.utils.errors import UserError
from scopevit.utils.wrappers import unwrap

IMAGE = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)


def merged(cfg, weights, image):
    """What a config's model predicts of an image, with the weights of a model without test-time augmentation."""
    with in_scope(cfg.default_scope):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.get('data_preprocessor')}).eval()
        unwrap(model).load_state_dict(weights)
        steps = [step for step in innermost(cfg.test_dataloader.dataset).pipeline if 'Load' not in step['type']]
        size = image.shape[:2]
        item = Compose(steps)(dict(img=image.copy(), img_shape=size, ori_shape=size, img_id=0, img_path=''))
        with torch.no_grad():
            return model.test_step(pseudo_collate([item]))[0]


def plain(predictor, image):
    with predictor.in_toolbox():
        return predictor.run(image, {})[0]


def test_scores_of_classes_are_averaged(models):
    config, checkpoint = models['classification']
    cfg = load_config(str(config))
    predictor = build_predictor(cfg, str(checkpoint), 'cpu')
    scores = [plain(predictor, image).pred_score for image in (IMAGE, IMAGE[:, ::-1])]
    assert not torch.allclose(*scores, atol=1e-6)
    augment_test(cfg, [1.0])
    found = merged(cfg, predictor.model.state_dict(), IMAGE)
    assert torch.allclose(found.pred_score, sum(scores) / 2, atol=1e-5)


def test_classes_of_pixels_come_from_all_sizes(models):
    config, checkpoint = models['segmentation']
    cfg = load_config(str(config))
    predictor = build_predictor(cfg, str(checkpoint), 'cpu')
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [step for step in dataset.pipeline if step['type'] != 'LoadAnnotations']  # there are none here
    augment_test(cfg, [1.0, 0.5])
    symmetric = np.concatenate([IMAGE, IMAGE[:, ::-1]], axis=1)
    found = merged(cfg, predictor.model.state_dict(), symmetric).pred_sem_seg.data.squeeze()
    assert found.shape == (150, 400)
    assert (found == found.flip(-1)).float().mean() > 0.99


def test_boxes_of_a_symmetric_image_are_symmetric(models):
    config, checkpoint = models['detection']
    cfg = load_config(str(config))
    with pytest.raises(UserError, match='mmdet merges boxes but no masks'):
        augment_test(cfg, [1.0])
    cfg.model.roi_head.mask_roi_extractor = cfg.model.roi_head.mask_head = None
    torch.manual_seed(0)  # a model whose boxes overlap leaves fewer pairs of them
    weights = build_model(cfg).state_dict()
    augment_test(cfg, [1.0])
    assert 'flip' in innermost(cfg.test_dataloader.dataset).pipeline[-1].transforms[-1][0]['meta_keys']
    symmetric = np.concatenate([IMAGE, IMAGE[:, ::-1]], axis=1)
    boxes = merged(cfg, weights, symmetric).pred_instances.bboxes
    assert len(boxes)
    mirrored = torch.stack([400 - boxes[:, 2], boxes[:, 1], 400 - boxes[:, 0], boxes[:, 3]], 1)
    assert (torch.cdist(boxes, mirrored).amin(1) < 2).float().mean() > 0.7


def test_poses_are_flipped_by_the_model(models):
    cfg = load_config(str(models['pose'][0]), {'model.test_cfg.flip_test': False})
    augment_test(cfg, [1.0])
    assert cfg.model.test_cfg.flip_test
    with pytest.raises(UserError, match='leave the scales out'):
        augment_test(cfg, [0.5, 1.0])


def test_sizes_are_multiplied():
    steps = [dict(type='Load'), dict(type='Resize', scale=(30, 20)), dict(type='CenterCrop', crop_size=16)]
    pipeline = augmented([*steps, dict(type='Pack')], [1.0, 0.5])
    variants, packs = pipeline[-1]['transforms']
    assert pipeline[0] == steps[0]
    assert [
        [step.get('scale') or step.get('crop_size') or step['prob'] for step in v['transforms']] for v in variants
    ] == [
        [(30, 20), 16, 0.0],
        [(30, 20), 16, 1.0],
        [(15, 10), 8, 0.0],
        [(15, 10), 8, 1.0],
    ]
    assert packs == [dict(type='Pack')]
    with pytest.raises(UserError, match='no step of the test pipeline sets a size'):
        augmented([steps[0], dict(type='Pack')], [0.5])


def test_other_toolboxes_are_an_error():
    with pytest.raises(UserError, match='mmagic merges no predictions'):
        augment_test(Config(dict(default_scope='mmagic', model=dict(type='X'))), [1.0])


def test_sides_without_a_limit_stay_so_and_one_scale_keeps_one_size():
    pipeline = [dict(type='Load'), dict(type='Resize', scale=(2048, -1), keep_ratio=True), dict(type='Pack')]
    first = augmented(pipeline, [1.75])[-1]['transforms'][0][0]
    assert first['transforms'][0]['scale'] == (3584, -1)
    fixed = [dict(type='Load'), dict(type='Resize', scale=(64, 64)), dict(type='Pack')]
    sizes = [has_one_size(Config(dict(test_dataloader=dict(dataset=dict(pipeline=augmented(fixed, scales))))), 'test')
        for scales in ([1.0], [1.0, 2.0])]  # fmt: skip
    assert sizes == [True, False]
