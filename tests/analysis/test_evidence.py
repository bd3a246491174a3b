"""Evidence of what models of all tasks predict."""

import numpy as np
import pytest
import torch

from helpers import CLASS_NAMES, ROOT
from scopevit.analysis.evidence import METHODS, Choice, evidence, grad_cam, layer_cam, number_of, peak
from scopevit.apis.inferencer import build_predictor
from scopevit.apis.view import view
from scopevit.utils.config import innermost, load_config
from scopevit.utils.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def predictors(models):
    return {task: build_predictor(load_config(str(c)), str(ckpt), 'cpu') for task, (c, ckpt) in models.items()}


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation', 'pose'])
def test_evidence_of_each_stage(predictors, task):
    predictor = predictors[task]
    for parameter in predictor.model.parameters():
        parameter.requires_grad_(False)  # as frozen stages are
    seen = view(predictor, IMAGE)
    target, cams = evidence(predictor, seen, Choice())
    assert set(cams) == set(METHODS)
    height, width = seen.inputs.shape[2:]
    for maps in cams.values():
        assert [cam.shape for cam in maps] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
        assert all((cam >= 0).all() and np.isfinite(cam).all() for cam in maps)
    assert any(cam.max() > 0 for cam in cams['layer-cam'])
    assert not any(module._forward_hooks for module in predictor.model.modules())
    if task in CLASS_NAMES:
        assert target.title.split()[0] in CLASS_NAMES[task]


def test_the_prediction_can_be_chosen(predictors):
    def chosen(task, *words):
        return evidence(predictors[task], view(predictors[task], IMAGE), Choice(*words))[0]

    assert chosen('classification', 'hämster').title.startswith('hämster')
    assert chosen('classification', '1').title.startswith('dog')
    assert chosen('pose', 'left_knee').title.startswith('left_knee')
    box = chosen('detection').box
    inside = (float(box[[0, 2]].mean()), float(box[[1, 3]].mean()))
    found = chosen('detection', None, inside).box
    assert found[0] <= inside[0] < found[2]
    region = chosen('segmentation', None, (120, 40)).mask
    seen = view(predictors['segmentation'], IMAGE)
    assert region[tuple(seen.in_input(120, 40).round().astype(int))]
    for task, words, says in (
        ('classification', ('dg',), 'the model has no class dg; did you mean dog'),
        ('segmentation', ('9',), 'no class 9; they are numbered from 0 to 3'),
        ('pose', ('left_kne',), 'no joint left_kne; did you mean left_knee'),
        ('pose', (None, (3, 3)), 'choose a joint by its name'),
        ('classification', (None, (3, 3)), 'the class of the whole image'),
        ('detection', (None, (200, 3)), 'outside the image'),
        ('segmentation', (None, (200, 3)), 'outside the image'),
    ):
        with pytest.raises(UserError, match=says):
            chosen(task, *words)


def test_synonyms_of_a_class():
    names = ('tench, Tinca tinca', 'cock')
    assert [number_of(name, names, 2, 'class') for name in ('tench', names[0], 'cock', '1')] == [0, 0, 1, 1]


def test_grad_cam_weighs_channels_and_layer_cam_places():
    maps = torch.zeros(2, 2, 2)
    maps[0, 0, 0] = maps[1, 1, 1] = 1.0
    gradients = torch.zeros(2, 2, 2)
    gradients[0, 0, 1], gradients[1, 1, 1] = 4.0, -4.0
    assert grad_cam(maps, gradients).tolist() == [[1, 0], [0, 0]]
    assert layer_cam(maps, gradients).tolist() == [[0, 0], [0, 0]]
    gradients[0, 0, 0] = 2.0
    assert layer_cam(maps, gradients).tolist() == [[2, 0], [0, 0]]


def test_the_peak_lies_where_what_counts_is(predictors):
    predictor = predictors['segmentation']
    seen = view(predictor, IMAGE)
    cam = np.zeros((16, 24))
    cam[5, 7] = 1
    assert np.allclose(peak(seen, cam, 0), seen.in_image(np.array([20, 28])))


@pytest.mark.parametrize(
    'name',
    ['retinanet_scopevit-xtiny_fpn_1x_coco', 'atss_scopevit-xtiny_fpn_1xb4-40e-ft_custom-320px'],
    ids=['of classes', 'times centerness'],
)
def test_heads_that_detach_their_scores(name):
    """As mmdet's dense heads do."""
    cfg = load_config(str(ROOT / f'configs/detection/{name}.py'), {'model.test_cfg.score_thr': 0.0})
    innermost(cfg.test_dataloader.dataset).pipeline[1].scale = (96, 64)
    torch.manual_seed(0)
    predictor = build_predictor(cfg, None, 'cpu')
    _, cams = evidence(predictor, view(predictor, IMAGE), Choice())
    assert all(cam.max() > 0 for cam in cams['layer-cam'])
