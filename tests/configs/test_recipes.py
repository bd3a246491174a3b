"""Every benchmark config holds what its recipe says, the paper's release's or a toolbox's, resolved and built."""

import re

import pytest
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from helpers import ROOT
from scopevit.engine import SyncBuffersHook

BENCHMARKS = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if re.search('_(in1k|coco|ade20k)-?', path.stem))
RECIPES = {  # images of an iteration, optimizer, learning rate, weight decay
    '384px': (512, 'AdamW', 2e-5, 1e-8),
    'dino': (16, 'AdamW', 1e-4, 1e-4),
    'mask2former': (16, 'AdamW', 1e-4, 0.05),
    'rtmpose': (1024, 'AdamW', 1e-3, 0.05),
    'classification': (1024, 'AdamW', 1e-3, 0.05),
    'mask-rcnn': (16, 'AdamW', 2e-4, 0.05),
    'retinanet': (16, 'AdamW', 1e-4, 0.05),
    '_fpn_8xb4': (32, 'AdamW', 2e-4, 1e-4),
    'upernet': (16, 'AdamW', 1e-4, 0.01),
    'td-hm': (256, 'Adam', 1e-3, 0),
}
LENGTHS = {  # what a training's epochs or iterations are, and where its rate falls or how
    '384px': ('epochs', 30, 'CosineAnnealingLR', 1e-6),
    'dino': ('epochs', 12, 'MultiStepLR', [11]),
    'mask2former_8xb2-160k': ('iters', 160000, 'PolyLR', 0.9),
    'mask2former': ('iters', 368750, 'MultiStepLR', [327778, 355092]),
    'rtmpose': ('epochs', 420, 'CosineAnnealingLR', 5e-5),
    'classification': ('epochs', 300, 'CosineAnnealingLR', 1e-6),
    '_1x': ('epochs', 12, 'MultiStepLR', [8, 11]),
    '_ms-3x_': ('epochs', 36, 'MultiStepLR', [27, 33]),
    '_fpn_8xb4': ('iters', 80000, 'PolyLR', 0.9),
    'upernet': ('iters', 160000, 'PolyLR', 1.0),
    'td-hm': ('epochs', 210, 'MultiStepLR', [170, 200]),
}
WARM_UPS = {  # first share of the rate, and for how many iterations or epochs
    'classification': (1e-2, 5),
    'dino': None,
    'mask2former': None,
    'rtmpose': (1e-5, 1000),
    'mask-rcnn': (1e-3, 500),
    'retinanet': (1e-3, 500),
    '_fpn_8xb4': None,
    'upernet': (1e-6, 1500),
    'td-hm': (1e-3, 500),
}


DROP_PATHS = {  # of xtiny, tiny and small
    'classification': (0, 0, 0),
    'detection': (0.05, 0.1, 0.1),
    'segmentation': (0.05, 0.1, 0.1),
    'pose': (0.1, 0.15, 0.2),
}


of_the_release = pytest.mark.parametrize(
    'path',
    [path for path in BENCHMARKS if not re.search('384px|cascade|dino|mask2former|rtmpose', path.stem)],
    ids=lambda path: path.stem,
)


def of(path, facts):
    name = f'{path.parent.name}/{path.name}'
    return next(value for key, value in facts.items() if key in name)


@pytest.fixture(params=BENCHMARKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cfg(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg):
    from mmengine.registry import MODELS

    return MODELS.build(cfg.model)


def transforms(loader):
    return {transform.type.removeprefix('scopevit.'): transform for transform in loader.dataset.pipeline}


def test_batch_and_rates(path, cfg):
    images, kind, rate, decay = of(path, RECIPES)
    gpus, batch = map(int, (re.search(r'_(\d+)xb(\d+)-', path.stem) or re.search('(8)(2)', '82')).groups())
    assert gpus * batch == gpus * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == images
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.get('weight_decay', 0)) == (kind, rate, decay)
    clip = of(path, {'dino': 0.1, 'mask2former': 0.01, '': None})
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == clip


def test_stochastic_depth(path, cfg):
    backbone = cfg.model.backbone
    assert backbone.get('drop_path_rate', 0) == of(path, DROP_PATHS)[('xtiny', 'tiny', 'small').index(backbone.arch)]


def test_batch_norms_over_processes(path, cfg):
    """Segmentation and pose synchronise them, as the release writes; its code does so in segmentation's heads alone."""
    written = path.parent.name in ('segmentation', 'pose')
    assert (cfg.get('sync_bn') == 'torch') == (written and '-as-run' not in path.stem)
    if path.parent.name == 'segmentation' and 'mask2former' not in path.stem:
        assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'
    # Where they are not synchronised in training, they are averaged before validation and saving.
    hooks = [hook.type for hook in cfg.get('custom_hooks') or ()]
    assert cfg.get('sync_bn') or any(hook.endswith('SyncBuffersHook') for hook in hooks)


def test_length_and_schedule(path, cfg):
    unit, length, kind, where = of(path, LENGTHS)
    assert cfg.train_cfg[f'max_{unit}'] == length
    (main,) = (part for part in cfg.param_scheduler if part.type == kind)
    assert main.end == length
    assert main[dict(CosineAnnealingLR='eta_min', MultiStepLR='milestones', PolyLR='power')[kind]] == where
    warm_ups = [(part.start_factor, part.end) for part in cfg.param_scheduler if part.type == 'LinearLR']
    assert warm_ups == [warm_up for warm_up in [of(path, WARM_UPS)] if warm_up]
    # Warm-up by iterations; the rate falls by epochs where lengths are epochs, but RTMPose's by iterations.
    assert all(
        part.get('convert_to_iter_based') or not part.by_epoch for part in cfg.param_scheduler if part is not main
    )
    assert main.by_epoch == (unit == 'epochs')
    assert main.get('convert_to_iter_based', False) == ('rtmpose' in path.stem)
    assert main.get('gamma', 0.1) == 0.1
    assert main.get('eta_min', 0) == (where if kind == 'CosineAnnealingLR' else 0)
    if kind != 'MultiStepLR':  # steps count from the beginning
        assert main.begin == of(path, {'rtmpose': 210, '': warm_ups[0][1] if warm_ups else 0})


def test_decay_groups_of_the_built_model(path, cfg):
    """None on norms and layer scale, where the release writes so; Semantic FPN decays everything, heatmaps nothing.

    Under DINO and Mask2Former the backbone learns ten times more slowly, and norms of DINO itself decay.

    As the release's code runs, names with 'norm' alone are spared.
    """
    *_, decay = of(path, RECIPES)
    model = build(cfg)
    settings = {**cfg.optim_wrapper, 'type': OptimWrapper}
    settings = {key: value for key, value in settings.items() if key not in ('dtype', 'loss_scale')}
    groups = build_optim_wrapper(model, Config(settings)._cfg_dict).param_groups
    of_parameter = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    slow = of(path, {'dino': 0.1, 'mask2former': 0.1, '': 1})
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm))
        for p in module.parameters()
    }
    counted = {'free': 0, 'decayed': 0}
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith('backbone.')
        is_free = id(parameter) in norms or (in_backbone and name.endswith('.gamma'))
        if path.parent.name == 'classification':  # no bias either
            is_free = is_free or parameter.ndim == 1
        elif 'rtmpose' in path.stem:
            is_free = is_free or name.endswith('.bias')
        if 'dino' in path.stem:
            is_free = is_free and in_backbone
        elif 'mask2former' in path.stem:
            is_free = is_free or any(part in name for part in ('query_embed', 'query_feat', 'level_embed'))
        if '-as-run' in path.stem:  # what its names hold: stem, positional encoding and heads have no 'norm' in theirs
            own = not any(part in name for part in ('stages.0.patch_embed', '.cpe.')) and name.startswith('backbone.')
            is_free = id(parameter) in norms and own
        expected = decay if '_fpn_8xb4' in path.stem or not is_free else 0
        assert of_parameter[id(parameter)] == expected, name
        expected_rate = cfg.optim_wrapper.optimizer.lr * (slow if in_backbone else 1)
        assert rates[id(parameter)] == pytest.approx(expected_rate), name
        assert 'td-hm' not in path.stem or 'weight_decay' not in cfg.optim_wrapper.optimizer
        counted['free' if is_free else 'decayed'] += 1
    assert min(counted.values()) > 30


def test_each_process_draws_its_own(cfg):
    assert cfg.randomness.diff_rank_seed
    assert cfg.randomness.seed is None


def test_images_of_one_size_let_cudnn_choose(path, cfg):
    assert cfg.env_cfg.cudnn_benchmark == (path.parent.name != 'detection')


@of_the_release
def test_images_that_are_tested(path, cfg):
    test = transforms(cfg.test_dataloader)
    assert test == transforms(cfg.val_dataloader)
    if path.parent.name == 'classification':
        assert (test['ResizeEdge'].scale, test['CenterCrop'].crop_size) == (284, 256)
        assert test['ResizeEdge'].interpolation == 'bicubic'
    elif path.parent.name == 'segmentation':
        names = list(test)
        assert names.index('Resize') < names.index('ResizeToMultiple') < names.index('LoadAnnotations')
        assert test['ResizeToMultiple'].size_divisor == 32
        assert test['Resize'].scale == (2048, 512)
        assert test['Resize'].keep_ratio
    elif path.parent.name == 'detection':
        assert (test['Resize'].scale, test['Resize'].keep_ratio) == ((1333, 800), True)
    elif path.parent.name == 'pose':
        assert cfg.model.test_cfg.flip_test
    assert cfg.val_dataloader.batch_size == dict(classification=128, pose=32).get(path.parent.name, 1)


@of_the_release
def test_images_that_are_trained_with(path, cfg):
    train = transforms(cfg.train_dataloader)
    assert train['RandomFlip'].get('prob', 0.5) == 0.5
    if path.parent.name == 'classification':
        augment = train['RandAugment']
        assert (augment.magnitude_level, augment.magnitude_std, augment.total_level) == (9, 0.5, 10)
        assert (augment.num_policies, augment.policies) == (2, 'timm_increasing')
        assert train['RandomResizedCrop'].interpolation == augment.hparams.interpolation == 'bicubic'
        assert cfg.model.head.loss.label_smooth_val == 0.1
        erasing = train['RandomErasing']
        assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
        assert (erasing.min_area_ratio, erasing.max_area_ratio) == (0.02, 1 / 3)
        assert cfg.train_dataloader.drop_last
        assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    elif path.parent.name == 'segmentation':
        assert (train['RandomResize'].ratio_range, train['RandomCrop'].crop_size) == ((0.5, 2.0), (512, 512))
        assert cfg.model.data_preprocessor.size == (512, 512)
    elif path.parent.name == 'detection':
        if '_ms-' in path.stem:
            sizes = train['RandomChoiceResize']
            assert (min(sizes.scales), max(sizes.scales)) == ((1333, 480), (1333, 800))
        else:
            sizes = train['Resize']
            assert sizes.scale == (1333, 800)
        assert sizes.get('keep_ratio') or sizes.resize_cfg.keep_ratio
    elif path.parent.name == 'pose':
        height, width = map(int, re.search(r'(\d+)x(\d+)$', path.stem).groups())
        for codec in (cfg.codec, cfg.model.head.decoder, train['GenerateTarget'].encoder):
            assert (codec.sigma, codec.input_size) == (2, (width, height))
            assert codec.heatmap_size == (width // 4, height // 4)


@of_the_release
def test_heads(path, cfg):
    stages = cfg.model.backbone.get('out_indices', (3,))
    assert stages == ((1, 2, 3) if 'retinanet' in path.stem else (0, 1, 2, 3) if 'fpn' in path.stem else stages)
    if path.parent.name == 'detection':
        assert cfg.model.neck.out_channels == 256
    elif 'upernet' in path.stem:
        assert (stages, cfg.model.decode_head.channels) == ((0, 1, 2, 3), 512)
        assert (cfg.model.auxiliary_head.in_index, cfg.model.auxiliary_head.loss_decode.loss_weight) == (2, 0.4)
    elif path.parent.name == 'pose':
        assert (stages, len(cfg.model.head.get('deconv_out_channels', (256, 256, 256)))) == ((3,), 3)


def test_only_small_poses_at_384_are_in_float16(path, cfg):
    in_half = cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
    assert in_half == (path.stem == 'td-hm_scopevit-small_8xb32-210e_coco-384x288')
    assert not in_half or (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')


def test_the_average_keeps_its_statistics():
    cfg = Config.fromfile(ROOT / 'configs/classification/scopevit-tiny_8xb128-300e-ema_in1k-256px.py')
    sync, ema = cfg.custom_hooks
    assert sync.type == f'scopevit.{SyncBuffersHook.__name__}'
    assert (ema.type, ema.momentum, ema.update_buffers) == ('EMAHook', 1e-4, True)


def test_fine_tuning_goes_on_with_larger_images():
    cfg = Config.fromfile(next(path for path in BENCHMARKS if '384px' in path.stem))
    train, test = transforms(cfg.train_dataloader), transforms(cfg.test_dataloader)
    assert (train['RandomResizedCrop'].scale, test['ResizeEdge'].scale, test['CenterCrop'].crop_size) == (384, 384, 384)


def test_rtmpose_needs_no_albumentations():
    cfg = Config.fromfile(next(path for path in BENCHMARKS if 'rtmpose' in path.stem))
    first, second = transforms(cfg.train_dataloader), cfg.custom_hooks[1].switch_pipeline
    cut_out = first['mmdet.CutOut']
    assert [(step.prob, step.transforms[0]) for step in second if step.type == 'RandomApply'] == [(0.5, cut_out)]
    assert 'Albumentation' not in [*first, *(step.type for step in second)]
    assert cfg.test_dataloader.dataset.bbox_file.endswith('AP_H_56_person.json')
