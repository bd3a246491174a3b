"""Running the tools as a user does, and small data for them."""

import contextlib
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'classification'
TOY = ROOT / 'tests' / 'data' / 'toy_classifier.py'
KERNEL_IS_POSSIBLE = (
    sys.platform == 'linux'
    and platform.machine() == 'x86_64'
    and torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')
    and hasattr(torch.compiler, 'is_exporting')
)
"""Whether ScopeViT's attention kernel can be compiled and used here."""
TRITON_IS_POSSIBLE = importlib.util.find_spec('triton') is not None and hasattr(torch.compiler, 'is_exporting')
"""Whether ScopeViT's kernels in Triton can be run here, by its interpreter or on a GPU."""
COMPILED_MMCV = bool(list(Path(mmcv.__file__).parent.glob('_ext.*')))
"""Whether mmcv is installed with operators of its own."""

# Narrow models of the benchmark configs' kinds, on small inputs.
SMALL_BACKBONE = """backbone=dict(
        arch=dict(_delete_=True, embed_dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 4)),
        drop_path_rate=0.0)"""
SMALL_NECK = 'neck=dict(in_channels=[16, 32, 32, 64], out_channels=32)'
SMALL_CONFIGS = {
    'classification': f"""
_base_ = '{ROOT}/configs/classification/scopevit-tiny_1xb64-30e-ft_custom-256px.py'
model = dict({SMALL_BACKBONE}, head=dict(num_classes=3, in_channels=64))
data_preprocessor = dict(num_classes=3)
test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=36, edge='short'), dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]))
""",
    'detection': f"""
_base_ = '{ROOT}/configs/detection/mask-rcnn_scopevit-xtiny_fpn_1x_coco.py'
model = dict({SMALL_BACKBONE}, {SMALL_NECK}, rpn_head=dict(in_channels=32, feat_channels=32), roi_head=dict(
    bbox_roi_extractor=dict(out_channels=32), mask_roi_extractor=dict(out_channels=32),
    bbox_head=dict(in_channels=32, fc_out_channels=32, num_classes=2),
    mask_head=dict(in_channels=32, conv_out_channels=32, num_classes=2)),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=4)))
test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
""",
    'segmentation': f"""
_base_ = '{ROOT}/configs/segmentation/scopevit-xtiny_fpn_8xb4-80k_ade20k-512x512.py'
model = dict({SMALL_BACKBONE}, {SMALL_NECK}, decode_head=dict(
    in_channels=[32, 32, 32, 32], channels=32, num_classes=4, norm_cfg=dict(type='SyncBN')))
test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 64), keep_ratio=True), dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')]))
""",
    'pose': f"""
_base_ = '{ROOT}/configs/pose/td-hm_scopevit-xtiny_8xb32-210e_coco-256x192.py'
model = dict({SMALL_BACKBONE}, head=dict(in_channels=64, deconv_out_channels=(32, 32, 32)))
""",
}
CLASS_NAMES = {
    'classification': ('cat', 'dog', 'hämster'),
    'detection': ('person', 'kite'),
    'segmentation': ('wall', 'sky', 'tree', 'road'),
}
"""Of the small models' classes."""


def tool(name, *words, cwd=None, timeout=300, env=None, check=True):
    """Run a Python tool or shell script of tools/ to its end; returns the finished process."""
    path = ROOT / 'tools' / name
    command = ['bash', path] if path.suffix == '.sh' else [sys.executable, path]
    environment = {**os.environ, 'PYTHON': sys.executable, **(env or {})}
    result = subprocess.run(
        [str(word) for word in [*command, *words]],
        cwd=cwd or ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    return _checked(result, name) if check else result


def _checked(result, name):
    assert not result.returncode, (
        f'{name} ended with {result.returncode}:\n{result.stdout[-3000:]}\n{result.stderr[-5000:]}'
    )
    return result


@contextlib.contextmanager
def quiet_toolboxes():
    """Undo what a tool that runs in this process sets for all of it: loggers, visualizers, warnings."""
    from mmengine.utils import ManagerMixin

    def instances():
        return {kind: kind._instance_dict for kind in _subclasses(ManagerMixin) if '_instance_dict' in vars(kind)}

    before = {kind: dict(existing) for kind, existing in instances().items()}
    with warnings.catch_warnings():
        yield
    # Asked each time: a toolbox imported in between brings classes of its own.
    for kind, existing in instances().items():
        existing.clear()
        existing.update(before.get(kind, {}))


def _subclasses(kind):
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def load_tool(name):
    """A Python tool as a module; what lies beside it can be imported, as when it is started."""
    path = ROOT / 'tools' / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        del sys.modules[spec.name]
    return module


def tool_here(name, *words, cwd=None, check=False):
    """Run a Python tool in this process, which has imported the toolboxes already: seconds faster than ``tool``."""
    stdout, stderr, before = io.StringIO(), io.StringIO(), (sys.argv, os.getcwd())
    status = 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), quiet_toolboxes():
        try:
            sys.argv = [str(word) for word in [name, *words]]
            os.chdir(cwd or ROOT)
            load_tool(name).main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            stderr.write('' if isinstance(end.code, int) else f'{end.code}\n')
        except Exception:
            status = 1
            stderr.write(traceback.format_exc())
        finally:
            sys.argv = before[0]
            os.chdir(before[1])
    result = subprocess.CompletedProcess([name, *words], status, stdout.getvalue(), stderr.getvalue())
    return _checked(result, name) if check else result


def fails_cleanly(result, *says):
    """A failure that tells what to do: a status, one message with these words, no traceback."""
    assert result.returncode != 0
    assert 'Traceback' not in result.stderr, result.stderr[-3000:]
    assert result.stderr.count('error: ') == 1, result.stderr[-3000:]
    for words in says:
        assert words in result.stderr, result.stderr[-3000:]


def write_image(path, seed=0, size=(40, 48)):
    """A small image of coloured noise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(small, size[::-1]))
    return path


def image_folders(root, classes=3, train=4, val=2):
    """One's own images as mmpretrain's CustomDataset reads them: root/{train,val}/<class>/*.jpg."""
    for c in range(classes):
        for split, count in (('train', train), ('val', val)):
            for i in range(count):
                write_image(root / split / f'class_{c}' / f'{i}.jpg', seed=100 * c + i)
    return root


def imagenet_folders(root):
    """ImageNet's layout: 1,000 class folders in train and val, one (shared) image in each."""
    image = write_image(root / 'image.jpeg', size=(300, 280))
    for split in ('train', 'val'):
        for c in range(1000):
            folder = root / split / f'n{c:08d}'
            folder.mkdir(parents=True)
            os.link(image, folder / f'{split}_{c}.JPEG')
    return root


def write_coco(root):
    """Two images a split, each with one person: box, mask, 17 keypoints, and a detection."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(0)
    # All of COCO's categories, as in the real files: mmdet maps its 80 labels to these.
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    person = dict(categories[0], keypoints=[str(k) for k in range(17)], skeleton=[])
    x, y, w, h = 40, 20, 80, 100
    for split in ('train2017', 'val2017'):
        images, annotations = [], []
        for i in range(2):
            write_image(root / split / f'{i:012d}.jpg', seed=i, size=(150, 200))
            images.append(dict(id=i, file_name=f'{i:012d}.jpg', height=150, width=200))
            keypoints = np.stack([rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17), np.full(17, 2)], 1)
            mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            common = dict(id=i + 1, image_id=i, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
            annotations.append(
                dict(common, segmentation=mask, keypoints=keypoints.flatten().tolist(), num_keypoints=17)
            )
        for kind, named in (('instances', categories), ('person_keypoints', [person])):
            path = root / 'annotations' / f'{kind}_{split}.json'
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=named)))
    detections = [dict(image_id=i, category_id=1, bbox=[x, y, w, h], score=0.9) for i in range(2)]
    path = root / 'person_detection_results' / 'COCO_val2017_detections_AP_H_56_person.json'
    path.parent.mkdir()
    path.write_text(json.dumps(detections))


def write_ade20k(root):
    """Two images a split, with every class and ignored pixels."""
    for split in ('training', 'validation'):
        for i in range(2):
            write_image(root / 'images' / split / f'ADE_{i:08d}.jpg', seed=i, size=(128, 160))
            path = root / 'annotations' / split / f'ADE_{i:08d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.random.default_rng(i).integers(0, 151, (128, 160), dtype=np.uint8))


def small_config(**model):
    """A config of a classifier without data, with whatever model settings are given."""
    backbone = dict(type='ResNet', depth=18, out_indices=(3,))
    head = dict(type='LinearClsHead', num_classes=5, in_channels=512)
    settings = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    preprocessor = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False, num_classes=5)
    return Config(
        dict(default_scope='mmpretrain', model={**settings, **model}, data_preprocessor=preprocessor), cfg_text=' '
    )


def write_small_models(folder):
    """A config and a checkpoint with random weights for each task."""
    from mmengine.registry import MODELS, init_default_scope

    torch.manual_seed(0)
    found = {}
    for task, text in SMALL_CONFIGS.items():
        source, config = folder / f'{task}_with_bases.py', folder / f'{task}.py'
        source.write_text(text)
        cfg = Config.fromfile(source)
        cfg.dump(config)
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        model.init_weights()
        meta = dict(dataset_meta=dict(classes=CLASS_NAMES[task])) if task in CLASS_NAMES else {}
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{task}.pth')
        found[task] = (config, folder / f'{task}.pth')
    return found
