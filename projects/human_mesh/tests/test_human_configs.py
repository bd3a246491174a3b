"""The configs, the tools on them, and files in COCO's layout."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from helpers import ROOT, fails_cleanly, tool_here
from projects.human_mesh.compare import measured
from projects.scenes.generator import write_coco
from scopevit.apis.model import build_model
from scopevit.utils.config import load_config

PROJECT = ROOT / 'projects' / 'human_mesh'
CONFIGS = sorted((PROJECT / 'configs').glob('*.py'))
BODIES = PROJECT / 'configs' / 'hmr_scopevit-xtiny_2xb32-6e_bodies-64x64.py'
COCO = PROJECT / 'configs' / 'hmr_scopevit-xtiny_2xb32-6e_coco-keypoints-64x64.py'
PREDICT = PROJECT / 'predict.py'


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """The scenes' figures: a dozen images in COCO's layout."""
    folder = tmp_path_factory.mktemp('scenes') / 'coco'
    write_coco(str(folder), seed=0, train=12, val=6)
    return folder


def load(path, coco):
    """A config with few images."""
    cfg = Config.fromfile(path)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for part in [cfg[name].dataset, *cfg[name].dataset.get('datasets', ())]:
            if part.type == 'CocoDataset':
                part.data_root = f'{coco}/'
            elif part.type == 'PosedBodies':
                part.count = 4
    return cfg


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_has_finite_losses_and_gradients_everywhere(path, coco):
    cfg = load(path, coco)
    torch.manual_seed(0)
    init_default_scope(cfg.default_scope)
    data, model = DATASETS.build(cfg.train_dataloader.dataset), build_model(cfg).train()
    batch = pseudo_collate([data[0], data[1], data[len(data) - 2], data[len(data) - 1]])
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert set(losses) == {f'loss_{name}' for name in cfg.model.head.losses}
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    known = [sample.gt_instance_labels.has_body.item() for sample in batch['data_samples']]
    assert known == {'bodies': [1, 1, 1, 1], 'bodies-coco': [1, 1, 0, 0]}.get(path.stem.split('_')[3][:-6], [0] * 4)


def test_keypoints_alone_change_labels_and_losses_and_nothing_else():
    full = Config.fromfile(BODIES)
    weak = Config.fromfile(BODIES.with_name(BODIES.name.replace('bodies-', 'bodies-keypoints-')))
    assert set(weak.model.head.losses) == {'keypoints', 'pose_prior', 'shape_prior'}
    weak.model.head.losses = full.model.head.losses
    assert weak.train_dataloader.dataset.pop('labels') == 'keypoints'
    assert weak.to_dict() == full.to_dict()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_training_that_is_broken_off_has_saved_something(path):
    cfg = Config.fromfile(path)
    assert cfg.default_hooks.checkpoint.interval < cfg.train_cfg.max_epochs
    assert [hook.type for hook in cfg.custom_hooks] == ['SyncBuffersHook']


@pytest.mark.parametrize(
    ('config', 'part'), [('coco-keypoints', 'dataset'), ('bodies-coco', 'dataset.datasets.1')], ids=['coco', 'both']
)
def test_files_elsewhere_are_named_as_the_readme_says(config, part):
    options = {f'{name}_dataloader.dataset.data_root': 'else/' for name in ('val', 'test')}
    options[f'train_dataloader.{part}.data_root'] = 'else/'
    cfg = load_config(str(BODIES).replace('bodies-', f'{config}-'), options)
    loaders = [cfg[f'{name}_dataloader'].dataset for name in ('train', 'val', 'test')]
    sets = [each for dataset in loaders for each in dataset.get('datasets', [dataset])]
    roots = [each.data_root for each in sets if each.type == 'CocoDataset']
    assert roots == ['else/'] * 3


@pytest.mark.slow
def test_bodies_are_learnt_scored_and_drawn(tmp_path):
    run, checkpoint = tmp_path / 'run', tmp_path / 'run' / 'epoch_1.pth'
    options = [
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
        'val_dataloader.batch_size=4',
    ]
    for loader, count in (('train_dataloader', 8), ('val_dataloader', 6), ('test_dataloader', 6)):
        options += [f'{loader}.dataset.count={count}', f'{loader}.num_workers=0', f'{loader}.persistent_workers=False']
    tool_here('train.py', BODIES, '--work-dir', run, '--seed', 0, *options, check=True)
    assert torch.load(checkpoint, weights_only=False)['meta']['iter'] == 2
    logged = measured(run, epochs=1)  # as the comparison reads it
    tool_here('test.py', BODIES, checkpoint, '--work-dir', tmp_path / 'test', *options, check=True)
    found = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert 0 < found['body/PA-MPJPE'] < found['body/MPJPE'] < 1000
    assert 0 < found['body/PVE'] < 1000
    assert logged['MPJPE'] == pytest.approx(found['body/MPJPE'], rel=1e-4)
    assert logged['seconds'] > 0

    # The repository's own tool draws the keypoints of its mesh.
    photo, out, said = tmp_path / 'photo.png', tmp_path / 'mesh.png', tmp_path / 'mesh.json'
    cv2.imwrite(str(photo), np.full((80, 120, 3), 90, np.uint8))
    words = [BODIES, checkpoint, photo, '--boxes', 'whole', '--out-dir', tmp_path / 'drawn']
    tool_here('predict.py', *words, check=True)
    (file,) = (tmp_path / 'drawn').rglob('*.json')
    assert len(json.loads(file.read_text())['instances'][0]['keypoints']) == 17

    # Its meshes over an image of one's own, in a box, and over held-out bodies.
    words = [BODIES, checkpoint, photo, '--box', 40, 10, 50, 60, '--bodies', 1, '--out', out, '--json', said]
    printed = tool_here(PREDICT, *words, check=True).stdout
    assert 'body 0: MPJPE ' in printed
    figure = cv2.imread(str(out))
    assert figure.shape[0] == 2 * 360
    middle = figure[:360, figure.shape[1] // 3 : 2 * figure.shape[1] // 3]
    blue, red = middle[..., 0].astype(int), middle[..., 2].astype(int)
    is_mesh = blue - red > 30
    rows, columns = is_mesh.nonzero()
    assert 0.02 < is_mesh.mean() < 0.5
    assert 0.2 < columns.mean() / middle.shape[1] < 0.8
    first, second = json.loads(said.read_text())
    assert first['image'] == str(photo)
    assert np.shape(first['vertices']) == np.shape(second['vertices'])
    places = np.array(first['pixels'])
    assert 40 < places[:, 0].mean() < 90  # in the box
    assert 10 < places[:, 1].mean() < 70


@pytest.mark.slow
def test_files_in_cocos_layout_are_learnt_and_scored(coco, tmp_path):
    options = [
        '--cfg-options',
        'train_cfg.max_epochs=1',
        f'val_evaluator.ann_file={coco}/annotations/person_keypoints_val2017.json',
    ]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options += [
            f'{loader}.dataset.data_root={coco}/',
            f'{loader}.num_workers=0',
            f'{loader}.persistent_workers=False',
        ]
    tool_here('train.py', COCO, '--work-dir', tmp_path, '--seed', 0, *options, check=True)
    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert np.isfinite(lines[0]['loss_keypoints'])
    assert 0 <= lines[-1]['coco/AP'] <= 1


def test_the_figure_is_drawn(tmp_path):
    out = tmp_path / 'bodies.png'
    assert 'vertices' in tool_here(PROJECT / 'figure.py', '--out', out, check=True).stdout
    assert cv2.imread(str(out)).shape == (2 * 192, 8 * 192, 3)


def test_what_cannot_be_predicted_is_refused(tmp_path):
    words = [BODIES, tmp_path / 'none.pth']
    fails_cleanly(tool_here(PREDICT, *words), 'name images, or take --bodies N')
    fails_cleanly(tool_here(PREDICT, *words, 'a.png', '--cfg-options', 'a=[1,2'), 'a=[1,2')
    fails_cleanly(tool_here(PREDICT, *words, 'a.png', 'b.png', '--box', 0, 0, 5, 5), '--box is for one image')
    fails_cleanly(tool_here(PREDICT, *words, 'a.png', '--out', tmp_path / 'mesh.txt'), 'must end in .png or .jpg')
    fails_cleanly(tool_here(PREDICT, *words, 'a.png', '--out', tmp_path / 'mesh.png'), 'none.pth')


def test_boxes_and_images_that_are_none_are_refused(tmp_path):
    checkpoint, photo, out = tmp_path / 'model.pth', tmp_path / 'photo.png', tmp_path / 'mesh.png'
    torch.save(dict(state_dict=build_model(Config.fromfile(BODIES)).state_dict()), checkpoint)
    cv2.imwrite(str(photo), np.zeros((40, 50, 3), np.uint8))
    words = [BODIES, checkpoint, '--out', out]
    fails_cleanly(tool_here(PREDICT, *words, photo, '--box', 60, 0, 5, 5), 'is not in', '50x40 pixels')
    fails_cleanly(tool_here(PREDICT, *words, tmp_path / 'missing.png'), 'missing.png cannot be read')
    other = ROOT / 'projects/scenes/configs/td-hm_scopevit-xtiny_2xb16-6e_scenes-128x96.py'
    torch.save(dict(state_dict=build_model(Config.fromfile(other)).state_dict()), checkpoint)
    fails_cleanly(tool_here(PREDICT, other, checkpoint, photo, '--out', out), 'has no BodyHead')
    assert not out.exists()
