"""Methods that look into the network: ManifoldMix before its stages, AutoMix beside it."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from projects.mixing.methods import FMix, ManifoldMix, MixBlock, automix
from projects.mixing.methods.stages import show_backbone, stages_of
from scopevit.apis.model import build_model, in_scope
from scopevit.utils.errors import UserError

ARCH = dict(embed_dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4))
SCOPEVIT = dict(type='scopevit.ScopeViT', arch=ARCH, rel_pos_drop=0.0)
BACKBONES = {
    'ScopeViT': SCOPEVIT,
    'ResNet, layer1 to layer4': dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    'ConvNeXt, stages': dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])),
    'Swin, stages of tokens': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=12, depths=[1, 1], num_heads=[1, 2]),
        img_size=32,
        window_size=4,
        out_indices=(1,),
    ),
    'ViT, layers': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=12, num_layers=3, num_heads=2, feedforward_channels=24),
        img_size=32,
        patch_size=16,
    ),
    'MobileNetV2, names of layers': dict(type='MobileNetV2', widen_factor=0.1),
}


def build(settings):
    torch.manual_seed(0)
    with in_scope('mmpretrain'):
        backbone = MODELS.build(settings)
    backbone.eval()  # batch norms of a batch would mix the images
    return backbone


def images_of(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('settings', BACKBONES.values(), ids=BACKBONES)
def test_features_of_a_batch_are_mixed_before_the_stage_that_is_drawn(settings):
    backbone = build(settings)
    plain, images = copy.deepcopy(backbone), images_of()
    count = len(stages_of(backbone))
    for stage in (0, 1, count - 1):
        augment, seen = ManifoldMix(alpha=1.0, stages=[stage]), copy.deepcopy(backbone)
        augment.see(seen)
        torch.manual_seed(2)
        given, labels = augment(images, torch.eye(4))
        mixed = seen(given)[-1]
        partners, share = partners_of(labels)

        # The same by hand: what enters the stage is caught from one model and mixed within another one.
        def mix(module, inputs, partners=partners, share=share):
            return share * inputs[0] + (1 - share) * inputs[0][partners], *inputs[1:]

        by_hand = copy.deepcopy(plain)
        handle = by_hand if stage == 0 else stages_of(by_hand)[stage]
        handle.register_forward_pre_hook(mix)
        torch.testing.assert_close(mixed, by_hand(images)[-1])
        assert not torch.allclose(mixed, plain(images)[-1])
        assert augment.plan is None
        torch.testing.assert_close(seen(images)[-1], plain(images)[-1])  # a validation after it is not mixed


def partners_of(labels):
    """With whom each image was mixed, and how much of it stayed, as the labels of a batch say."""
    rows = range(len(labels))
    found = [next((j for j in rows if j != i and labels[i, j] > 0), i) for i in rows]
    i = next(i for i in rows if found[i] != i)
    return torch.tensor(found), labels[i, i].item()


def test_a_mixed_output_depends_on_two_images_alone():
    backbone = build(SCOPEVIT)
    augment = ManifoldMix(stages=[2])
    augment.see(backbone)
    images = images_of().requires_grad_()
    torch.manual_seed(3)
    given, labels = augment(images, torch.eye(4))
    outputs = backbone(given)[-1]
    for i in range(4):
        (gradient,) = torch.autograd.grad(outputs[i].sum(), images, retain_graph=True)
        assert {j for j in range(4) if gradient[j].any()} == {j for j in range(4) if labels[i, j] > 0}


def test_every_stage_is_drawn_and_draws_go_on():
    augment = ManifoldMix()
    augment.see(build(SCOPEVIT))

    def draw(count):
        drawn = []
        for _ in range(count):
            images, labels = augment(images_of(), torch.eye(4))
            drawn.append((augment.plan.stage if augment.plan else 0, labels))
            augment.plan = None
        return drawn

    torch.manual_seed(4)
    draw(1)
    state = torch.get_rng_state()
    first = draw(60)
    assert {stage for stage, _ in first} == {0, 1, 2, 3}
    torch.set_rng_state(state)
    again = draw(60)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(first, again))


def test_features_keep_their_type_under_mixed_precision():
    backbone = build(SCOPEVIT)
    augment, types = ManifoldMix(stages=[1]), []
    augment.see(backbone)
    stages_of(backbone)[1].register_forward_pre_hook(lambda module, inputs: types.append(inputs[0].dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        backbone(images_of())
        images, labels = augment(images_of(), torch.eye(4))
        backbone(images)
    assert types[0] == types[1]
    assert labels.dtype == torch.float32


def test_manifoldmix_refuses_what_it_cannot_mix(monkeypatch):
    with pytest.raises(UserError, match='LeNet5 shows no stages .* mixes images alone'):
        ManifoldMix().see(build(dict(type='LeNet5')))
    backbone = build(SCOPEVIT)
    for stages in ([4], [], [-1]):
        with pytest.raises(UserError, match='must be some of 0 to 3, which ScopeViT'):
            ManifoldMix(stages=stages).see(backbone)
    augment = ManifoldMix(stages=[1])
    augment.see(backbone)
    augment(images_of(), torch.eye(4))
    with pytest.raises(UserError, match='stage 1 of ScopeViT did not run'):
        augment(images_of(), torch.eye(4))
    monkeypatch.setattr(torch, 'compile', lambda call: call)  # which would load the compiler
    backbone.compile()
    with pytest.raises(UserError, match='no --compile'):
        ManifoldMix().see(backbone)


def test_a_model_without_a_backbone_is_refused():
    model = nn.Module()
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.batch_augments = Config(dict(augments=[ManifoldMix()]))
    with pytest.raises(UserError, match='no backbone'):
        show_backbone(model)


def test_losses_take_mixed_labels_as_they_are():
    torch.manual_seed(5)
    scores = torch.randn(4, 5)
    _, labels = FMix()(images_of(), torch.eye(5)[:4])
    logs = scores.log_softmax(dim=1)
    binary = -(labels * scores.sigmoid().log() + (1 - labels) * (-scores).sigmoid().log())
    expected = [
        (dict(type='CrossEntropyLoss', use_soft=True), -(labels * logs).sum(dim=1).mean()),
        (dict(type='LabelSmoothLoss', label_smooth_val=0.1), -((0.9 * labels + 0.1 / 5) * logs).sum(dim=1).mean()),
        (dict(type='CrossEntropyLoss', use_sigmoid=True), binary.mean()),
    ]
    with in_scope('mmpretrain'):
        for settings, loss in expected:
            torch.testing.assert_close(MODELS.build(settings)(scores, labels), loss)


# AutoMix


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    head = dict(
        type='LinearClsHead', num_classes=5, in_channels=32, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    )
    settings = dict(
        type='AutoMixClassifier',
        mix_stage=1,
        backbone=SCOPEVIT,
        neck=dict(type='GlobalAveragePooling'),
        head=head,
    )
    return build_model(Config(dict(default_scope='mmpretrain', model=settings), cfg_text=' ')).train()


def samples_of(count=4):
    return [DataSample().set_gt_label(i) for i in range(count)]


def test_a_mask_is_what_cross_attention_gives():
    torch.manual_seed(0)
    block = MixBlock(4)
    own, other = torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 2)
    masks = block(own, other, 0.3)
    weight, bias = block.project.weight.flatten(1), block.project.bias
    for b in range(2):
        first, second = (
            torch.cat([x[b].flatten(1), torch.full((1, 6), share)]) for x, share in ((own, 0.3), (other, 0.7))
        )
        queries, keys = weight @ first + bias[:, None], weight @ second + bias[:, None]
        values = block.value.weight.flatten(1) @ second + block.value.bias
        for n in range(6):
            similarities = torch.stack([queries[:, n] @ keys[:, m] for m in range(6)]) / 2**0.5
            expected = (similarities.softmax(dim=0) * values[0]).sum().sigmoid()
            torch.testing.assert_close(masks[b, 0].flatten()[n], expected)


def test_each_loss_trains_its_own_part(classifier):
    losses = classifier.loss(images_of(), samples_of())
    parameters = dict(classifier.named_parameters())
    trained = {}
    for name, loss in losses.items():
        gradients = (
            torch.autograd.grad(
                loss, [p for p in parameters.values() if p.requires_grad], allow_unused=True, retain_graph=True
            )
            if loss.requires_grad
            else []
        )
        names = [name for name, p in parameters.items() if p.requires_grad]
        trained[name] = {n.partition('.')[0] for n, gradient in zip(names, gradients) if gradient is not None}
    assert trained['loss'] == trained['loss_mixed'] == {'backbone', 'head'}
    assert trained['loss_generator'] == {'mix_block'}
    assert trained['loss_mask'] == {'mix_block'}
    assert not any(p.requires_grad for p in classifier.teacher.parameters())


def test_the_teacher_begins_as_the_classifier_and_follows_it(classifier, monkeypatch):
    def values(part):
        return torch.cat([p.detach().flatten() for p in part.parameters()])

    student = nn.ModuleList([classifier.backbone, classifier.head])
    nn.init.normal_(classifier.head.fc.weight)
    classifier.loss(images_of(), samples_of())
    torch.testing.assert_close(values(classifier.teacher), values(student))
    assert not classifier.teacher.training
    before = values(classifier.teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    monkeypatch.setattr(automix, '_progress', lambda: 0.5)
    classifier.loss(images_of(), samples_of())
    torch.testing.assert_close(
        values(classifier.teacher) - before, torch.full_like(before, 0.0005), atol=1e-6, rtol=1e-3
    )
    statistics = dict(classifier.backbone.named_buffers())
    for name, buffer in classifier.teacher['backbone'].named_buffers():
        if 'num_batches' not in name:
            assert buffer.shape == statistics[name].shape


def test_means_of_masks_cost_what_is_beyond_the_tolerance(classifier, monkeypatch):
    monkeypatch.setattr(automix, 'draw_share', lambda alpha: 0.95)
    classifier.mix_block.forward = lambda own, other, share: torch.full((4, 1, 4, 4), 0.5)
    losses = classifier.loss(images_of(), samples_of())
    assert losses['loss_mask'].item() == pytest.approx(0.1 * (0.45 - 0.1))
    monkeypatch.setattr(automix, '_progress', lambda: 0.75)
    assert classifier.loss(images_of(), samples_of())['loss_mask'].item() == pytest.approx(0.025 * (0.45 - 0.1))


def test_automix_predicts_as_mmpretrains_classifier(classifier):
    classifier.eval()
    plain = classifier.head(classifier.neck(classifier.backbone(images_of())))
    torch.testing.assert_close(classifier(images_of()), plain)


def test_automix_takes_no_other_augments():
    settings = dict(
        type='AutoMixClassifier',
        mix_stage=0,
        backbone=SCOPEVIT,
        train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)),
    )
    with pytest.raises(UserError, match='mixes the images itself'), in_scope('mmpretrain'):
        MODELS.build(settings)
