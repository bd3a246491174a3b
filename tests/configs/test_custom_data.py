"""The page on one's own data, command by command in a fresh folder, with data as the page describes them."""

import hashlib
import json
import re
import shlex
import subprocess

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT, image_folders, tool, tool_here, write_image
from scopevit.checks.channels import check_channels
from scopevit.models import ScopeViT
from scopevit.utils.config import load_config, parse_pairs

FINE_TUNING = sorted((ROOT / 'configs').glob('*/*_custom*.py'))
PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
# One's own config of the page is read in the middle of this: narrow heads, small images, a short training.
SMALL = """
_base_ = './{page}.py'
loader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
train_dataloader = dict(**loader, batch_size=2)
val_dataloader = dict(**loader)
test_dataloader = val_dataloader
"""
DETECTOR = """
rois = dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=32))
if _base_.model.roi_head.mask_head:
    rois.update(
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1),
    )
model = dict(
    neck=dict(out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=rois,
    test_cfg=dict(rcnn=dict(score_thr=0.0)),  # after so few steps nothing is sure
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scales = [(96, 64)]
test_pipeline[1].scale = (96, 64)
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
"""
ONE_EPOCH = ['train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=1']
ONE_EPOCH += [
    f'{loader}_dataloader.{key}' for loader in ('train', 'val') for key in ('num_workers=0', 'persistent_workers=False')
]
SEGMENTER = """
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    neck=dict(out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (128, 64)
train_pipeline[3].crop_size = (64, 64)
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
"""
POSE = """
model = dict(head=dict(deconv_out_channels=(16, 16, 16)))
"""


def commands(name, folder):
    """The page's commands for one of its configs, as the shell gives them to Python in a folder."""
    blocks = re.findall(r'```bash\n(.*?)```', PAGE, flags=re.DOTALL)
    (block,) = [block for block in blocks if block.startswith('name=')]
    variables, find_backbone, *lines = block.replace('\\\n', ' ').splitlines()
    assert re.fullmatch(r'name=\w+ epoch=\d+', variables)
    script = [f'name={name} epoch=2', find_backbone, *(f'printf "%q " {line}; echo' for line in lines)]
    result = subprocess.run(['bash', '-ec', '\n'.join(script)], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stderr == ''
    return result.stdout.splitlines()


class Page:
    """One task's configs and its commands, in a folder with links to the repository and a quick start's backbone."""

    def __init__(self, name, folder, small, *predict):
        self.folder, self.name, self.small = folder, name, small
        (section,) = [part for part in PAGE.split('\n## ') if f'`my_configs/{name}.py`' in part]
        self.configs = re.findall(r'```python\n(.*?)```', section, flags=re.DOTALL)
        for linked in ('configs', 'tools', 'scopevit'):
            (folder / linked).symlink_to(ROOT / linked)
        (folder / 'my_configs').mkdir()
        for time, arch in (('20260101-120000', 'small'), ('20260102-120000', 'xtiny')):
            quickstart = folder / 'work_dirs/quickstart' / time
            quickstart.mkdir(parents=True)
            torch.save(ScopeViT(arch).state_dict(), quickstart / 'backbone.pth')
            digest = hashlib.sha256((quickstart / 'backbone.pth').read_bytes()).hexdigest()[:8]
            (quickstart / 'backbone.pth').rename(quickstart / f'scopevit-xtiny_scenes-{digest}.pth')
        self.commands = commands(name, folder)
        self.predict = predict
        for i in range(2):
            write_image(folder / 'data' / 'new' / f'{i}.jpg', seed=50 + i)

    def write_config(self, text, name):
        """Save a config of the page under the name that its commands use, made small."""
        configs = self.folder / 'my_configs'
        (configs / f'{name}_page.py').write_text(text)
        (configs / f'{name}.py').write_text(SMALL.format(page=f'{name}_page') + self.small)

    def run(self):
        """Run every command in its order; of one page training and testing as processes of their own, as users do."""
        self.write_config(self.configs[0], self.name)
        names = []
        for command in self.commands:
            python, path, *words = shlex.split(command)
            assert python == 'python'
            name = path.removeprefix('tools/')
            names.append(name)
            run = tool if self.name == 'pets' and name in ('train.py', 'test.py') else tool_here
            words += self.predict if name == 'predict.py' else ()
            result = run(name, *words, cwd=self.folder)
            assert result.returncode == 0, f'{command}\n{result.stdout[-2000:]}{result.stderr[-4000:]}'
            if name == 'train.py':
                assert '0 missing, 0 unexpected, 0 of another shape' in result.stdout + result.stderr
        assert names == [
            'data/check_dataset.py',
            'visualization/browse_dataset.py',
            'train.py',
            'test.py',
            'visualization/draw_predictions.py',
            'visualization/plot_curves.py',
            'predict.py',
            'converters/publish_model.py',
        ]
        work_dir = self.folder / 'work_dirs' / self.name
        for figure in ('samples.png', 'predictions.png', 'curves.png'):
            assert (work_dir / figure).stat().st_size > 5_000
        published = shlex.split(self.commands[-1])[-1].removesuffix('.pth')
        assert len(list(self.folder.glob(f'{published}-*.pth'))) == 1
        return work_dir

    def try_variant(self, text, name):
        """Another config of the page: checked, and trained."""
        self.write_config(text, name)
        return self.check_and_train(name)

    def try_other(self, name, *words):
        """A config of another section of the page, as it stands there: checked, and trained for an epoch."""
        (text,) = re.findall(rf'`my_configs/{name}\.py`(?:(?!```).)*```python\n(.*?)```', PAGE, flags=re.DOTALL)
        (self.folder / 'my_configs' / f'{name}.py').write_text(text)
        work_dir = self.check_and_train(name, *words, '--cfg-options', *ONE_EPOCH)
        assert (work_dir / 'epoch_1.pth').is_file()
        return Config.fromfile(work_dir / f'{name}.py')

    def check_and_train(self, name, *words):
        config = f'my_configs/{name}.py'
        for command, *more in (('data/check_dataset.py',), ('train.py', *words)):
            result = tool_here(command, config, *more, cwd=self.folder)
            assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return self.folder / 'work_dirs' / name


def metrics(work_dir):
    return json.loads((work_dir / 'metrics.json').read_text())


def predicted(work_dir):
    return [json.loads((work_dir / 'new' / f'{i}.jpg.json').read_text()) for i in range(2)]


def write_coco_file(path, annotations, categories):
    """An annotation file of as many images as there are lists of annotations, with no more keys than the pages say."""
    images, flat = [], []
    for i, of_image in enumerate(annotations):
        write_image(path.parents[1] / path.stem / f'{i:03d}.jpg', seed=i, size=(60, 80))
        images.append(dict(id=i + 1, file_name=f'{i:03d}.jpg', width=80, height=60))
        flat += [dict(annotation, id=len(flat) + k + 1, image_id=i + 1) for k, annotation in enumerate(of_image)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=flat, categories=categories)))


def people(joints):
    """Somebody with all joints marked, somebody with some."""
    rng = np.random.default_rng(0)
    for least in (joints, joints // 2):
        x, y, w, h = 20, 10, 30, 40
        marked = np.stack([rng.uniform(x, x + w, joints), rng.uniform(y, y + h, joints), np.full(joints, 2)], 1)
        marked[least:] = 0
        yield dict(
            category_id=1,
            iscrowd=0,
            area=w * h,
            bbox=[x, y, w, h],
            num_keypoints=least,
            keypoints=marked.round(1).flatten().tolist(),
        )


@pytest.mark.parametrize('path', FINE_TUNING, ids=lambda path: path.stem)
def test_config_builds_and_keeps_the_promises_of_its_name(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert list(check_channels(model)) == []
    gpus, batch, epochs = map(int, re.search(r'_(\d+)xb(\d+)-(\d+)e-ft_', path.stem).groups())
    assert (gpus, cfg.train_dataloader.batch_size) == (1, batch)
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
    # A checkpoint of the last epoch, validated: what the page tests, draws and publishes.
    assert epochs % cfg.train_cfg.get('val_interval', 1) == epochs % cfg.default_hooks.checkpoint.interval == 0
    assert 'SyncBuffersHook' in [hook.type for hook in cfg.custom_hooks]
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    rates = {id(group['params'][0]): group['lr'] for group in groups if group['params']}
    first = model.backbone.stages[0].patch_embed[0].weight
    blocks = sum(len(stage.blocks) for stage in model.backbone.stages)
    decay = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    assert rates[id(first)] == pytest.approx(cfg.optim_wrapper.optimizer.lr * decay ** (blocks + 1))


@pytest.mark.parametrize('name', ['pets', 'fruit', 'roads', 'dance'])
def test_page_names_the_last_epoch_and_the_batch_of_each_config(name):
    (section,) = [part for part in PAGE.split('\n## ') if f'`my_configs/{name}.py`' in part]
    batch, epochs = re.search(r"_base_ = '\S+_1xb(\d+)-(\d+)e-ft_", section).groups()
    assert f'\n| {name} | {epochs} |' in PAGE
    assert f'{name} {batch}' in next(line for line in PAGE.splitlines() if 'train_dataloader.batch_size' in line)


def test_commands_work_without_a_quick_start(tmp_path):
    (train,) = [line.split() for line in commands('pets', tmp_path) if 'train.py' in line]
    assert train[2:] == ['my_configs/pets.py', '--cfg-options', 'model.backbone.arch=xtiny']


@pytest.mark.slow
def test_classification(tmp_path):
    image_folders(tmp_path / 'data' / 'pets', classes=3, train=2, val=2)
    page = Page('pets', tmp_path, '')
    work_dir = page.run()
    assert 'accuracy/top1' in metrics(work_dir)
    assert {best['class'] for best in predicted(work_dir)[0]['top']} == {'class_0', 'class_1', 'class_2'}
    saved = page.try_other('pets_small')
    _, resize, crop, _ = saved.test_dataloader.dataset.pipeline
    assert (saved.train_dataloader.dataset.pipeline[1].scale, resize.scale, crop.crop_size) == (64, 72, 64)


@pytest.mark.slow
def test_detection(tmp_path):
    categories = [dict(id=4, name='apple'), dict(id=9, name='pear')]
    objects = []
    for category in (4, 9):
        x, y, w, h = 5 + category, 8, 40, 30
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        objects.append(dict(category_id=category, iscrowd=0, area=w * h, bbox=[x, y, w, h], segmentation=[corners]))
    for split in ('train', 'val'):
        write_coco_file(tmp_path / 'data/fruit/annotations' / f'{split}.json', [objects, objects[:1]], categories)
    page = Page('fruit', tmp_path, DETECTOR)
    work_dir = page.run()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics(work_dir))
    assert all('instances' in found for found in predicted(work_dir))

    # Without masks, as the page says: two lines changed.
    for split in ('train', 'val'):
        path = tmp_path / 'data/fruit/annotations' / f'{split}.json'
        path.write_text(re.sub(r', "segmentation": \[\[.*?\]\]', '', path.read_text()))
        assert 'segmentation' not in path.read_text()
    boxes_only = dict(line.split(' = ', 1) for line in page.configs[1].strip().splitlines())
    lines = page.configs[0].strip().splitlines()
    changed = [
        line if (key := line.split(' = ')[0]) not in boxes_only else f'{key} = {boxes_only[key]}' for line in lines
    ]
    page.try_variant('\n'.join(changed), 'fruit_boxes')
    assert (tmp_path / 'work_dirs/fruit_boxes/epoch_2.pth').is_file()

    # The slim detector, and a toolbox's with its backbone swapped.
    saved = page.try_other('fruit_small')
    assert scales(saved) == [(320, 320)] * 3
    small = ['train_dataloader.dataset.pipeline.2.scale=(96,64)', 'val_dataloader.dataset.pipeline.1.scale=(96,64)']
    saved = page.try_other('fruit_atss', '--swap-backbone', 'xtiny', '--cfg-options', *small)
    assert saved.model.backbone.type == 'scopevit.ScopeViT'


def scales(cfg):
    """The sizes of a detector's images, in training, validation and test."""
    train, *others = (cfg[f'{name}_dataloader'].dataset.pipeline for name in ('train', 'val', 'test'))
    return [train[2].scale, *(pipeline[1].scale for pipeline in others)]


def test_size_of_the_slim_detector_is_changed_as_the_page_says(tmp_path):
    (slim,) = (path for path in FINE_TUNING if path.stem.endswith('-320px'))
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = '{slim}'\nsize = (96, 96)\n")
    assert scales(load_config(str(child))) == [(320, 320)] * 3  # as the page warns
    (pairs,) = re.findall(r'train.py my_configs/fruit_small.py --cfg-options (.*?)\n *```', PAGE, re.DOTALL)
    options = parse_pairs(shlex.split(pairs.replace('\\\n', ' ')))
    assert scales(load_config(str(child), options)) == [(256, 256)] * 3


@pytest.mark.slow
def test_segmentation(tmp_path):
    root = tmp_path / 'data' / 'roads'
    for split in ('train', 'val'):
        for i in range(2):
            write_image(root / 'images' / split / f'{i:03d}.jpg', seed=i, size=(60, 80))
            labels = np.random.default_rng(i).integers(0, 3, (6, 8), dtype=np.uint8)
            labels[0] = 255
            path = root / 'masks' / split / f'{i:03d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), labels.repeat(10, 0).repeat(10, 1))
    page = Page('roads', tmp_path, SEGMENTER)
    work_dir = page.run()
    assert 0 <= metrics(work_dir)['mIoU'] <= 100
    assert {entry['class'] for entry in predicted(work_dir)[0]['classes']} <= {'other', 'road', 'vehicle'}
    saved = page.try_other('roads_small')
    assert saved.model.data_preprocessor.size == saved.train_dataloader.dataset.pipeline[3].crop_size == (128, 128)
    assert saved.test_dataloader.dataset.pipeline[1].scale == (1024, 128)


@pytest.mark.slow
def test_pose(tmp_path):
    for split in ('train', 'val'):
        path = tmp_path / 'data/dance/annotations' / f'{split}.json'
        write_coco_file(path, [[person] for person in people(17)], [dict(id=1, name='person')])
    page = Page('dance', tmp_path, POSE, '--boxes', 'whole')
    work_dir = page.run()
    assert 'coco/AP' in metrics(work_dir)
    ((person,), _) = (found['instances'] for found in predicted(work_dir))
    assert [joint['name'] for joint in person['keypoints']][:2] == ['nose', 'left_eye']
    saved = page.try_other('dance_small')
    encoder = saved.train_dataloader.dataset.pipeline[6].encoder
    assert saved.model.head.decoder.heatmap_size == encoder.heatmap_size == (24, 32)
    assert saved.test_dataloader.dataset.pipeline[2].input_size == (96, 128)

    # Other joints, as the page's last part says.
    for split in ('train', 'val'):
        path = tmp_path / 'data/dance/annotations' / f'{split}.json'
        write_coco_file(path, [[bird] for bird in people(3)], [dict(id=1, name='bird')])
    _, joints, birds = page.configs
    (tmp_path / 'my_configs' / 'bird_joints.py').write_text(joints)
    page.try_variant(birds, 'birds')
    words = ['my_configs/birds.py', 'work_dirs/birds/epoch_2.pth', 'data/new', '--out-dir', 'birds', '--boxes', 'whole']
    result = tool_here('predict.py', *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (bird,) = json.loads((tmp_path / 'birds' / '0.jpg.json').read_text())['instances']
    assert [joint['name'] for joint in bird['keypoints']] == ['beak', 'left_wing', 'right_wing']
