"""Transforms that are faster than mmpretrain's do what those do: the same draws, and results as near as is promised."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

from helpers import CONFIGS, image_folders, write_image
from scopevit.datasets.transforms import resize
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError

PILLOW = dict(bilinear=Image.BILINEAR, bicubic=Image.BICUBIC)
FROM_PILLOW = 2  # of 255


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def noise(seed, *shape):
    """An image of smooth areas and hard edges, to and over both ends of the values."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(shape[1::-1], Image.BICUBIC)
    hard = rng.integers(0, 2, (*shape[:2], 3)) * 255
    mixed = np.where(rng.random((*shape[:2], 1)) < 0.3, hard, np.array(image)).astype(np.uint8)
    return mixed if shape[2:] else mixed[..., 0]


def ours(kind, **settings):
    return TRANSFORMS.build(dict(type=f'scopevit.{kind}', **settings))


def theirs(kind, **settings):
    return TRANSFORMS.build(dict(type=kind, **settings))


def draw(transform, image, seed):
    np.random.seed(seed)
    return transform(dict(img=image.copy(), img_shape=image.shape[:2]))


def distance(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return np.abs(a.astype(int) - b).max()


@pytest.mark.parametrize('interpolation', PILLOW)
@pytest.mark.parametrize('colour', [(3,), ()], ids=['colour', 'grey'])
def test_resizing_is_that_of_pillow(interpolation, colour):
    rng = np.random.default_rng(0)
    sizes = [((1, 1), (7, 5)), ((9, 8), (1, 1)), ((1, 300), (20, 20)), ((64, 48), (64, 48)), ((50, 40), (50, 7))]
    sizes += [(rng.integers(1, 400, 2), rng.integers(1, 400, 2)) for _ in range(40)]
    for seed, (before, after) in enumerate(sizes):
        image = noise(seed, *before, *colour)
        expected = np.array(Image.fromarray(image).resize([int(n) for n in after[::-1]], PILLOW[interpolation]))
        resized = resize(image, [int(n) for n in after], interpolation)
        assert distance(resized, expected) <= FROM_PILLOW, (before, after)
        assert resized.flags.c_contiguous
        assert resized.flags.writeable


def test_resizing_takes_any_strides_and_leaves_the_image_alone():
    image = noise(0, 60, 90, 3)
    image.flags.writeable = False
    for view in (image[5:40, 10:70], image[:, ::-1], image[::2, :, ::-1], image.transpose(1, 0, 2), image[..., :1]):
        resized = resize(view, (30, 31), 'bicubic')
        assert np.array_equal(resized, resize(np.ascontiguousarray(view), (30, 31), 'bicubic'))
        assert resized.shape == (30, 31, view.shape[2])
    same = resize(image, image.shape[:2], 'bicubic')
    assert np.array_equal(same, image)
    assert not np.shares_memory(same, image)  # random erasing writes into it


@pytest.mark.parametrize('shape', [(300, 400, 3), (400, 90, 3), (2, 500, 3), (1, 1, 3), (120, 100)])
def test_crops_are_those_of_mmpretrain(shape):
    settings = dict(scale=(64, 48), interpolation='bicubic')
    quick, upstream = (
        ours('RandomResizedCrop', backend='torch', **settings),
        theirs('RandomResizedCrop', backend='pillow', **settings),
    )
    with_pillow = ours('RandomResizedCrop', backend='pillow', **settings)
    image = noise(1, *shape)
    for seed in range(20):
        a, b, c = (draw(transform, image, seed) for transform in (quick, upstream, with_pillow))
        assert distance(a['img'], b['img']) <= FROM_PILLOW
        assert np.array_equal(c['img'], b['img'])
        assert a['img_shape'] == b['img_shape'] == c['img_shape']


@pytest.mark.parametrize('edge', ['short', 'long', 'width', 'height'])
@pytest.mark.parametrize('shape', [(300, 400, 3), (40, 31, 3), (120, 100)])
def test_edges_are_those_of_mmpretrain(edge, shape):
    settings = dict(scale=96, edge=edge, interpolation='bicubic')
    quick, upstream = (
        ours('ResizeEdge', backend='torch', **settings),
        theirs('ResizeEdge', backend='pillow', **settings),
    )
    a, b = (draw(transform, noise(2, *shape), 0) for transform in (quick, upstream))
    assert distance(a.pop('img'), b.pop('img')) <= FROM_PILLOW
    assert a == b


POLICIES = dict(policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5)
HPARAMS = dict(pad_val=[104, 116, 124], interpolation='bicubic')


@pytest.mark.parametrize('seed', range(3))
def test_random_augmentation_is_that_of_mmpretrain(seed):
    transforms = [build('RandAugment', hparams=HPARAMS, **POLICIES) for build in (ours, theirs)]
    image, others = noise(seed, 70, 60, 3), 0
    for i in range(150):
        image_here = image[:, ::-1] if i % 2 else image
        results = []
        for transform in transforms:
            np.random.seed(1000 * seed + i)
            results.append((transform(dict(img=image_here))['img'], np.random.rand()))
        others += (results[0][0] != results[1][0]).mean() / 150
        assert results[0][1] == results[1][1]  # as many draws
    assert others < 1e-3


@pytest.mark.parametrize('kind', ['Shear', 'Translate'])
@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_shifts_are_those_of_opencv(kind, direction):
    rng, others = np.random.default_rng(0), []
    for seed, magnitude in enumerate([0.0, 0.5, 1.0, 3.0, *rng.uniform(0, 0.5, 40)]):
        policy = dict(type=kind, magnitude=magnitude, direction=direction, interpolation='bicubic', prob=1.0)
        settings = dict(policies=[policy], num_policies=1, magnitude_level=9)
        settings['hparams'] = dict(pad_val=[104, 116, 124] if seed % 2 else 128)
        image = noise(seed, *rng.integers(1, 90, 2), 3)
        a, b = (draw(build('RandAugment', **settings), image, seed)['img'] for build in (ours, theirs))
        assert distance(a, b) <= 1
        assert a.flags.c_contiguous
        others.append((a != b).mean())
    assert np.mean(others) < 1e-3


@pytest.mark.parametrize(
    'policy',
    [
        dict(type='AutoContrast', prob=1.0),
        dict(type='Equalize', prob=1.0),
        dict(type='Invert', prob=1.0),
        dict(type='Posterize', bits=3, prob=1.0),
        dict(type='Solarize', thr=130, prob=1.0),
        dict(type='SolarizeAdd', magnitude=60, thr=100, prob=1.0),
        dict(type='Brightness', magnitude=0.7, prob=1.0),
        dict(type='Contrast', magnitude=0.6, prob=1.0),
        dict(type='ColorTransform', magnitude=0.87, prob=1.0),
        dict(type='Sharpness', magnitude=0.7118635757911783, prob=1.0),
        dict(type='Rotate', angle=11.0, interpolation='bicubic', prob=1.0),
        dict(type='Shear', magnitude=0.2, interpolation='bilinear', prob=1.0),
        dict(type='Cutout', shape=8, prob=1.0),
    ],
    ids=lambda policy: policy['type'],
)
@pytest.mark.parametrize('image', [noise(3, 33, 47, 3), np.full((4, 5, 3), 200, np.uint8), noise(3, 1, 1, 3)])
def test_each_augmentation(policy, image):
    settings = dict(policies=[policy], num_policies=1, magnitude_level=9)
    transforms = [build('RandAugment', **settings) for build in (ours, theirs)]
    a, b = (draw(transform, image, 0)['img'] for transform in transforms)
    assert distance(a, b) == 0
    assert a.flags.writeable


@pytest.mark.parametrize('kind', [np.int64, np.uint32, bool, 'one channel', 'grey'])
def test_all_but_colour_images_of_bytes_are_left_to_mmpretrain(kind):
    image = noise(3, 20, 30, 3)
    views = {'one channel': image[..., :1], 'grey': image[..., 0]}
    image = views[kind] if isinstance(kind, str) else image.astype(kind)
    policies = [dict(type='Posterize', bits=3), dict(type='Solarize', thr=99), dict(type='Brightness', magnitude=0.3)]
    for policy in policies:
        settings = dict(policies=[dict(policy, prob=1.0)], num_policies=2, magnitude_level=9)
        for view in (image, image[:, ::-1]):  # as a flip leaves it
            np.random.seed(0)
            a, b = (build('RandAugment', **settings)(dict(img=view))['img'] for build in (ours, theirs))
            assert distance(a, b) == 0


@pytest.mark.parametrize('pad_val', [None, 1.5, (1, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize('kind', ['Shear', 'Translate'])
def test_wrong_padding_is_refused_as_by_mmpretrain(kind, pad_val):
    policy = dict(type=kind, magnitude=0.2, interpolation='bicubic', prob=1.0, pad_val=pad_val)
    messages = []
    for build in (ours, theirs):
        with pytest.raises((AssertionError, ValueError)) as caught:
            draw(build('RandAugment', policies=[policy], num_policies=1, magnitude_level=9), noise(3, 20, 30, 3), 0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    'filling', [dict(mode='rand', fill_std=[58.0, 9.0, 0.5]), dict(mode='rand'), dict(mode='const')]
)
def test_erasing_is_equal_bit_for_bit(filling):
    settings = dict(erase_prob=0.7, fill_color=[4.5, 116.28, 250], **filling)
    transforms = [build('RandomErasing', **settings) for build in (ours, theirs)]
    for seed in range(40):
        results = [(draw(transform, noise(4, 50, 40, 3), seed)['img'], np.random.rand()) for transform in transforms]
        assert distance(results[0][0], results[1][0]) == 0
        assert results[0][1] == results[1][1]


@pytest.mark.parametrize('shape', [(9, 7, 3), (9, 7, 1), (9, 7)])
def test_packing_is_equal(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for view in (image, image[2:6, 1:5], image[:, ::-1], image.astype(np.float32)):
        a, b = (build('PackInputs')(dict(img=view, gt_label=2)) for build in (ours, theirs))
        assert a['inputs'].dtype == b['inputs'].dtype
        assert torch.equal(a['inputs'], b['inputs'])
        assert a['inputs'].is_contiguous()
        assert a['data_samples'].gt_label == b['data_samples'].gt_label


def test_wrong_arguments_are_refused():
    for kind in ('RandomResizedCrop', 'ResizeEdge'):
        with pytest.raises(UserError, match="bilinear and bicubic interpolation, not nearest; set backend='pillow'"):
            draw(ours(kind, scale=8, backend='torch', interpolation='nearest'), noise(0, 9, 9, 3), 0)
        with pytest.raises(ValueError, match='backend: torhc is not supported for resize'):
            draw(ours(kind, scale=8, backend='torhc'), noise(0, 9, 9, 3), 0)
    for kind, settings in (
        ('RandomResizedCrop', dict(scale=8, interpolation='cubic')),
        ('ResizeEdge', dict(scale=8, edge='left')),
        ('RandAugment', dict(policies='timm', num_policies=2, magnitude_level=9)),
    ):
        messages = []
        for build in (ours, theirs):
            with pytest.raises(AssertionError) as caught:
                build(kind, **settings)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def as_mmpretrain_has_it(pipeline):
    """A pipeline with mmpretrain's transforms in place of this package's, resizing by Pillow."""
    theirs = copy.deepcopy(pipeline)
    for step in theirs:
        if 'interpolation' in step:
            step['backend'] = 'pillow'
        step['type'] = step['type'].removeprefix('scopevit.')
    return theirs


@pytest.fixture
def imagenet():
    return Config.fromfile(CONFIGS / 'scopevit-tiny_8xb128-300e_in1k-256px.py')


@pytest.mark.parametrize('split', ['train', 'test'])
def test_the_pipeline_of_imagenet_is_that_of_mmpretrain(imagenet, split, tmp_path):
    pipeline = imagenet[f'{split}_dataloader'].dataset.pipeline
    upstream = as_mmpretrain_has_it(pipeline)
    if split == 'train':
        base = load_config('mmpretrain::_base_/datasets/imagenet_bs64_swin_256.py').train_pipeline
        for step in base + upstream:
            step.pop('_scope_', None)
        assert upstream == base
    image = write_image(tmp_path / 'photo.jpg', size=(375, 500))
    transforms = [pickle.loads(pickle.dumps(Compose(steps))) for steps in (pipeline, upstream)]  # as to workers
    for seed in range(30):
        packed = []
        for transform in transforms:
            np.random.seed(seed)
            packed.append(transform(dict(img_path=str(image), gt_label=3)))
        a, b = (result['inputs'] for result in packed)
        # But for single pixels, which fall on the other side of a threshold of solarize or posterize.
        assert ((a.int() - b.int()).abs() <= FROM_PILLOW).float().mean() > 0.99
        assert a.shape == (3, 256, 256)
        assert [result['data_samples'].gt_label.item() for result in packed] == [3, 3]


def test_images_come_to_the_device_as_bytes_from_pinned_memory(imagenet, tmp_path):
    """A quarter of the traffic: it is mmpretrain's preprocessor that makes them float32 and normalises, there."""
    for split in ('train', 'val', 'test'):
        assert imagenet[f'{split}_dataloader'].pin_memory
    folder = image_folders(tmp_path)
    loader = imagenet.train_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
    pipeline = loader.dataset.pipeline
    loader.dataset = dict(type='CustomDataset', data_root=str(folder), data_prefix='train', pipeline=pipeline)
    batch = next(iter(Runner.build_dataloader(loader)))
    assert batch['inputs'].dtype == torch.uint8
    assert batch['inputs'].shape == (4, 3, 256, 256)
    preprocessor = MODELS.build(dict(type='ClsDataPreprocessor', **imagenet.data_preprocessor)).to('meta')
    images = preprocessor(dict(inputs=batch['inputs']))['inputs']
    assert (images.device.type, images.dtype) == ('meta', torch.float32)
