"""Methods that mix images by masks, against plain formulas."""

import math

import numpy as np
import pytest
import torch
from mmpretrain.models import RandomBatchAugment
from torch import nn

from projects.mixing.methods import AttentiveMix, FMix, GridMix, ManifoldMix, SaliencyMix, SmoothMix
from projects.mixing.methods.common import draw_share
from projects.mixing.methods.salient import spectral_residual
from projects.mixing.methods.shapes import low_frequency_noise
from projects.mixing.methods.stages import stage_map
from scopevit.utils.errors import UserError


class Pooling(nn.Module):
    """A backbone of two stages whose maps can be told by hand: means of 4 x 4 and of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.AvgPool2d(4, ceil_mode=True), nn.Dropout()), nn.AvgPool2d(2)])

    def forward(self, x):
        return self.stages[1](self.stages[0](x))


def attentive(top=3):
    augment = AttentiveMix(stage=0, top=top)
    augment.see(Pooling())
    return augment


METHODS = {
    'fmix': FMix,
    'gridmix': GridMix,
    'smoothmix': SmoothMix,
    'saliencymix': SaliencyMix,
    'attentivemix': attentive,
}
every_method = pytest.mark.parametrize('build', METHODS.values(), ids=METHODS)
SIZES = [(8, 8), (32, 32), (33, 28), (15, 70)]


def constant_images(count=6, size=(32, 32)):
    """Image i has the value i everywhere, and class i."""
    values = torch.arange(count, dtype=torch.float32)
    return values.view(-1, 1, 1, 1).expand(count, 3, *size).clone(), torch.eye(count), values


def textures(count=6, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *size, generator=generator)


# What holds for all


@every_method
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_labels_have_the_part_that_their_images_have(build, size):
    torch.manual_seed(0)
    augment = build()
    images, scores, values = constant_images(size=size)
    for _ in range(5):
        mixed, labels = augment(images, scores)
        # The mean of an image is what its labels say of the images in it.
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), labels @ values)
        torch.testing.assert_close(labels.sum(dim=1), torch.ones(len(labels)))
        assert labels.min() >= 0


@pytest.mark.parametrize('build', [FMix, GridMix, SaliencyMix, attentive])
def test_a_pixel_of_a_hard_mask_is_of_one_image(build):
    torch.manual_seed(1)
    images, scores, values = constant_images()
    mixed, labels = build()(images, scores)
    for own in range(len(images)):
        for other in mixed[own].unique().long():
            part = (mixed[own, 0] == values[other]).float().mean()
            assert part == labels[own, other]  # exactly: both are a count over the pixels


@every_method
def test_an_image_depends_on_itself_and_its_partner_alone(build):
    torch.manual_seed(2)
    augment = build()
    images = textures(count=5).requires_grad_()
    mixed, labels = augment(images, torch.eye(5))
    for i in range(5):
        (gradient,) = torch.autograd.grad(mixed[i].sum(), images, retain_graph=True)
        seen = {j for j in range(5) if gradient[j].any()}
        assert seen == {j for j in range(5) if labels[i, j] > 0}
        assert len(seen) <= 2


@every_method
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_type_is_kept_and_the_batch_given_stays(build, dtype):
    torch.manual_seed(3)
    augment = build()
    images, scores = textures().to(dtype), torch.eye(6, dtype=torch.long)
    before = images.clone(), scores.clone()
    mixed, labels = augment(images, scores)
    assert (mixed.dtype, mixed.shape, labels.dtype) == (dtype, images.shape, torch.float32)
    assert torch.equal(images, before[0])
    assert torch.equal(scores, before[1])
    assert not torch.equal(mixed, images)


@every_method
def test_mixed_precision_does_not_touch_masks(build):
    augment = build()
    torch.manual_seed(4)
    plain = augment(textures(), torch.eye(6))
    torch.manual_seed(4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        under_amp = augment(textures(), torch.eye(6))
    assert all(map(torch.equal, plain, under_amp))


@every_method
def test_a_batch_of_one_is_mixed_with_itself(build):
    image = textures(count=1)
    mixed, labels = build()(image, torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(mixed, image)
    torch.testing.assert_close(labels, torch.tensor([[0.0, 1.0, 0.0]]))


@every_method
def test_draws_follow_from_torchs_random_state_alone(build):
    augment, images = build(), textures()
    torch.manual_seed(5)
    augment(images, torch.eye(6))
    state = torch.get_rng_state()
    first = augment(images, torch.eye(6))
    second = augment(images, torch.eye(6))
    np.random.seed(1)
    torch.set_rng_state(state)  # as a training that goes on does
    assert all(map(torch.equal, augment(images, torch.eye(6)), first))
    assert all(map(torch.equal, augment(images, torch.eye(6)), second))
    assert not torch.equal(first[0], second[0])


@every_method
def test_other_shapes_are_refused(build):
    for images, scores in ((textures(), torch.arange(6)), (textures()[0], torch.eye(3)), (textures(), torch.eye(5))):
        with pytest.raises(UserError, match='one-hot or soft labels'):
            build()(images, scores)


@every_method
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='gpu')
def test_a_gpu_mixes_as_the_cpu_and_waits_for_nothing(build):
    augment, on_gpu = build(), build()
    images, scores = textures(), torch.eye(6)
    if isinstance(on_gpu, AttentiveMix):
        on_gpu.backbone.cuda()
    torch.manual_seed(6)
    expected = augment(images, scores)
    there = images.cuda(), scores.cuda()
    on_gpu(*there)
    torch.manual_seed(6)
    torch.cuda.set_sync_debug_mode('error')
    try:
        mixed = on_gpu(*there)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    for own, other in zip(mixed, expected):
        torch.testing.assert_close(own.cpu(), other)


def test_methods_are_found_by_name_beside_mmpretrains():
    augments = [dict(type=kind) for kind in ('FMix', 'GridMix', 'SmoothMix', 'SaliencyMix')]
    chosen = RandomBatchAugment([*augments, dict(type='Mixup', alpha=0.8)], probs=[0.2] * 5)
    images, scores, values = constant_images()
    for _ in range(20):
        mixed, labels = chosen(images, scores)
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), labels @ values)


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        (dict(type='FMix', alpha=0), 'alpha'),
        (dict(type='SaliencyMix', alpha='1'), 'alpha'),
        (dict(type='ManifoldMix', alpha=-1.0), 'alpha'),
        (dict(type='GridMix', grid=1), 'grid'),
        (dict(type='SmoothMix', spread=(0.5, 0.25)), 'spread'),
    ],
    ids=str,
)
def test_wrong_options_are_named(settings, says):
    with pytest.raises(UserError, match=says):
        RandomBatchAugment(settings)


# Draws


@pytest.mark.parametrize('alpha', [0.2, 1.0, 2.0])
def test_shares_are_beta_distributed(alpha):
    torch.manual_seed(0)
    shares = torch.tensor([draw_share(alpha) for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    if alpha == 1:  # uniform: the largest distance between the two distribution functions, by Kolmogorov and Smirnov
        ranks = torch.arange(1, 4001) / 4000
        assert (shares.sort().values - ranks).abs().max() < 1.63 / math.sqrt(4000)


@pytest.mark.parametrize('build', [FMix, GridMix])
def test_areas_have_the_distribution_of_the_shares(build):
    torch.manual_seed(0)
    augment, images = build(alpha=1.0), torch.zeros(1, 1, 16, 16)
    areas = torch.stack([augment.draw_masks(images, None).float().mean() for _ in range(1000)])
    assert areas.mean() == pytest.approx(0.5, abs=0.03)
    assert areas.var() == pytest.approx(1 / 12, rel=0.12)


# Each method


def test_fmix_keeps_the_highest_values_of_low_frequency_noise(monkeypatch):
    monkeypatch.setattr('projects.mixing.methods.shapes.draw_share', lambda alpha: 0.3)
    size = torch.Size((9, 14))
    torch.manual_seed(7)
    values = low_frequency_noise(size, 3.0, torch.device('cpu'))
    torch.manual_seed(7)
    mask = FMix().draw_masks(torch.zeros(2, 3, *size), None)[0, 0]
    assert mask.sum() == round(0.3 * 9 * 14)
    assert values[mask].min() >= values[~mask].max()


def test_noise_is_the_transform_of_a_weighted_spectrum():
    height, width = 5, 4
    torch.manual_seed(8)
    values = low_frequency_noise((height, width), 3.0, torch.device('cpu'))
    torch.manual_seed(8)
    noise = torch.randn(height, width, dtype=torch.complex64).numpy()
    expected = np.zeros((height, width), dtype=complex)
    for u in range(height):
        for v in range(width):
            down, across = min(u, height - u) / height, min(v, width - v) / width
            weight = max(math.hypot(down, across), 1 / height) ** -3.0
            for y in range(height):
                for x in range(width):
                    wave = np.exp(2j * math.pi * (u * y / height + v * x / width))
                    expected[y, x] += noise[u, v] * weight * wave / (height * width)
    np.testing.assert_allclose(values.numpy(), expected.real, rtol=1e-3, atol=1e-4)


def test_fmix_is_smoother_with_a_larger_decay():
    def edges(decay):
        torch.manual_seed(9)
        masks = torch.cat([FMix(decay=decay).draw_masks(torch.zeros(1, 1, 32, 32), None) for _ in range(20)])
        return (masks[..., 1:] != masks[..., :-1]).float().mean()

    assert edges(3.0) < edges(1.5) < edges(0.0)


def test_gridmix_keeps_whole_cells(monkeypatch):
    monkeypatch.setattr('projects.mixing.methods.shapes.draw_share', lambda alpha: 0.3)
    mask = GridMix(grid=4).draw_masks(torch.zeros(1, 1, 32, 64), None)[0, 0]
    cells = mask.view(4, 8, 4, 16).float().mean(dim=(1, 3))
    assert set(cells.flatten().tolist()) == {0.0, 1.0}
    assert cells.sum() == round(0.3 * 16)


def test_smoothmix_is_a_gaussian_around_a_pixel():
    torch.manual_seed(10)
    mask = SmoothMix().draw_masks(torch.zeros(2, 3, 12, 20), None)[0, 0]
    torch.manual_seed(10)
    part = torch.empty(()).uniform_(0.25, 0.5).item()
    row, column = torch.randint(12, ()).item(), torch.randint(20, ()).item()
    for y in range(12):
        for x in range(20):
            exponent = ((y - row) / (part * 12)) ** 2 + ((x - column) / (part * 20)) ** 2
            assert mask[y, x].item() == pytest.approx(1 - math.exp(-exponent / 2), abs=1e-6)
    assert mask[row, column] == 0


def plain_spectral_residual(image):
    """Of one grey image (H, W), in NumPy."""
    spectrum = np.fft.fft2(image)
    amplitude = np.log(np.abs(spectrum))
    height, width = image.shape
    residual = np.empty_like(amplitude)
    for u in range(height):
        for v in range(width):
            around = [amplitude[(u + i) % height, (v + j) % width] for i in (-1, 0, 1) for j in (-1, 0, 1)]
            residual[u, v] = amplitude[u, v] - np.mean(around)
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = np.zeros_like(saliency)
    kernel = [[math.exp(-0.5 * (k / (side / 8)) ** 2) for k in range(-4 * side, 4 * side + 1)] for side in image.shape]
    for axis, (side, weights) in enumerate(zip(image.shape, kernel)):
        source = saliency if axis == 0 else smooth
        smooth = sum(
            np.roll(source, k, axis) * weight / sum(weights)
            for k, weight in zip(range(-4 * side, 4 * side + 1), weights)
        )
    return smooth


def test_saliency_is_the_spectral_residual():
    images = textures(count=2, size=(12, 16)).double()
    found = spectral_residual(images).double().numpy()
    for i in range(2):
        expected = plain_spectral_residual(images[i].mean(dim=0).numpy())
        np.testing.assert_allclose(found[i], expected, rtol=1e-3)


@pytest.mark.parametrize('size', [(32, 32), (40, 96), (200, 130)], ids=str)
def test_saliencymix_pastes_the_salient_place_at_its_place(size, monkeypatch):
    monkeypatch.setattr('projects.mixing.methods.salient.draw_share', lambda alpha: 0.75)
    images = 0.01 * textures(count=2, size=size)
    height, width = size
    places = [(slice(height // 4, height // 4 + 4), slice(width // 4, width // 4 + 4))]
    places.append((slice(height * 3 // 4, height * 3 // 4 + 4), slice(width // 2, width // 2 + 4)))
    for image, place in zip(images, places):
        image[(slice(None), *place)] = 3.0
    masks = SaliencyMix().draw_masks(images, torch.tensor([1, 0]))
    for mask, place in zip(masks, places[::-1]):
        assert not mask[0][place].any()
        assert (~mask).sum() <= (height // 2) * (width // 2)  # sqrt(1 - 0.75) of each side


def test_attentivemix_pastes_the_cells_that_the_network_attends_to():
    augment, images = attentive(top=3), textures(size=(32, 32))
    partners = torch.tensor([3, 4, 5, 0, 1, 2])
    masks = augment.draw_masks(images, partners)
    for mask, partner in zip(masks, images[partners]):
        means = partner.unflatten(1, (8, 4)).unflatten(3, (8, 4)).mean(dim=(2, 4))  # 8 x 8 cells of 4 x 4 pixels
        best = means.abs().mean(dim=0).flatten().topk(3).indices
        cells = (~mask[0]).view(8, 4, 8, 4).float().mean(dim=(1, 3))
        assert set(cells.flatten().nonzero().flatten().tolist()) == set(best.tolist())
        assert cells.sum() == 3


def test_attentivemix_asks_for_cells_that_there_are():
    with pytest.raises(UserError, match='top of AttentiveMix must be from 1 to 63 of the 8 x 8 cells'):
        attentive(top=64)(textures(), torch.eye(6))
    with pytest.raises(UserError, match='stage must be from 0 to 1 for Pooling'):
        AttentiveMix(stage=2).see(Pooling())
    with pytest.raises(UserError, match='AttentiveMix looks into the network.*MixingHook'):
        AttentiveMix()(textures(), torch.eye(6))
    with pytest.raises(UserError, match='ManifoldMix looks into the network.*MixingHook'):
        ManifoldMix()(textures(), torch.eye(6))


def test_looking_into_a_network_leaves_it_as_it_was():
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    backbone = Pooling()
    backbone.stages[0] = stem
    stem[1].eval()  # frozen by hand
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    found = stage_map(backbone, 0, textures())
    assert found.shape == (6, 4, 30, 30)
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert (backbone.training, stem[1].training, stem[2].training) == (True, False, True)
    assert not stem._forward_hooks


def test_weights_get_gradients_after_a_look_under_mixed_precision():
    backbone, images = Pooling(), textures()
    backbone.stages[0] = nn.Conv2d(3, 4, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        stage_map(backbone, 0, images)
        backbone(images).float().sum().backward()
    assert backbone.stages[0].weight.grad.abs().max() > 0
