"""Models whose heads take more than maps to boxes or classes train on a batch of small images on a CPU."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

from helpers import ROOT

SIZE = 256  # DINO chooses 900 of the places in its maps


def objects():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [(3, SIZE, SIZE)] * 2, num_items=[2, 1], num_classes=80, with_mask=True)


def label_maps():
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE))) for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.arange(SIZE)[None, :, None].expand(1, SIZE, SIZE) // 64)
    return dict(inputs=list(torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)), data_samples=samples)


@pytest.mark.parametrize(
    ('path', 'batch'),
    [
        ('detection/cascade-mask-rcnn_scopevit-tiny_fpn_1x_coco', objects),
        ('detection/dino-4scale_scopevit-tiny_8xb2-12e_coco', objects),
        ('detection/mask2former_scopevit-tiny_8xb2-lsj-50e_coco', objects),
        ('segmentation/scopevit-tiny_mask2former_8xb2-160k_ade20k-512x512', label_maps),
    ],
)
def test_a_step_reaches_every_parameter(path, batch):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / 'configs' / f'{path}.py')
    init_default_scope(cfg.default_scope)
    for holder in (cfg.model.data_preprocessor, cfg.model):  # a batch of its own size, not of 1024x1024 or 512x512
        holder.pop('batch_augments', None)
        if 'size' in holder:
            holder.size = (SIZE, SIZE)
    model = MODELS.build(cfg.model)
    model.init_weights()  # as a training does: some parameters have arbitrary values before
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    gradients = {}
    step = wrapper.step

    def look_and_step(**kwargs):
        gradients.update((name, parameter.grad) for name, parameter in model.named_parameters())
        step(**kwargs)

    wrapper.step = look_and_step
    losses = model.train_step(batch(), wrapper)
    assert torch.isfinite(losses['loss'])
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    # Some biases have none by nature: what is added to all logits of a softmax.
    weights = [name for name in gradients if name.startswith('backbone.') and name.endswith('weight')]
    assert [name for name in weights if not gradients[name].any()] == []
